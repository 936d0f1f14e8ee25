"""What to quantize and how: rules by name, and the algorithm that finds the scales.

A rule is a pattern for names of quantizers, with what those quantizers do. Rules apply in order,
and later ones win. A linear layer ``mlp.c_fc`` has the quantizers ``mlp.c_fc.weight_quantizer`` and
``mlp.c_fc.input_quantizer``; one that makes attention's keys or values has
``k_bmm_quantizer`` or ``v_bmm_quantizer``, for the key/value cache, too.

The dict form and the list form of nvidia-modelopt are accepted by :meth:`QuantizationConfig.of`.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Optional, Union

from tripy.errors import TripyException
from tripy.quantization.formats import QuantizerConfig

VERSION = 1
METHODS = ("max", "smoothquant", "awq", "gptq")
CALIBRATORS = ("max", "percentile", "entropy", "mse")
WEIGHT_CALIBRATORS = ("max", "mse")
# Other names that users know for an algorithm, and what they stand for here.
ALIASES: dict[str, dict[str, Any]] = {
    "awq_lite": {"method": "awq"},
    "awq_clip": {"method": "max", "weight_calibrator": "mse"},
    "awq_full": {"method": "awq", "weight_calibrator": "mse"},
    "percentile": {"method": "max", "calibrator": "percentile"},
    "entropy": {"method": "max", "calibrator": "entropy"},
    "mse": {"method": "max", "calibrator": "mse", "weight_calibrator": "mse"},
}
# Patterns that configurations leave out for models that have such parts: no mistake elsewhere.
USUAL_EXCLUSIONS = (
    "*lm_head*", "*output_layer*", "output.*", "*proj_out.*", "*router*", "*mlp.gate.*",
    "*block_sparse_moe.gate*", "*mlp.shared_expert_gate.*", "*linear_attn.conv1d*",
    "*self_attention.conv1d*", "*mixer.conv1d*", "*linear_attn.in_proj_a*",
    "*linear_attn.in_proj_b*", "mtp.*", "*embed_vision*", "*vision_tower*", "*visual*",
    "*vision_model*", "*multi_modal_projector*", "*output_quantizer",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """Which quantizers do what.

    Args:
        pattern: For names of quantizers: ``*``, ``?`` and ``[...]`` as in file names.
        quantizers: What they do, one after the other; () keeps what earlier rules have said.
        enable: Whether they do anything.
        parent_class: Only in layers of that class, such as "nn.Linear"; None for all but norms,
            whose inputs are rounded only where a rule names their class: "nn.LayerNorm".

    Example:
        >>> import tripy.quantization as tq
        >>> tq.Rule("*mlp*weight_quantizer", (tq.QuantizerConfig(4, block_size=128),)).enable
        True
    """

    pattern: str
    quantizers: tuple[QuantizerConfig, ...] = ()
    enable: bool = True
    parent_class: Optional[str] = None

    def matches(self, name: str, layer_class: str) -> bool:
        """Whether the rule is for that quantizer of a layer of that class."""
        wanted = self.parent_class
        if wanted is not None and wanted.rpartition(".")[2] != layer_class:
            return False
        return fnmatch.fnmatchcase(name, self.pattern)


@dataclass(frozen=True)
class Algorithm:
    """How scales are found.

    Args:
        method: "max": as the calibrators say. "smoothquant" and "awq": move range between inputs
            and weights with ``pre_quant_scale`` first. "gptq": round weights one column after the
            other, each making up for the error of those before it.
        calibrator: How the threshold of inputs is read from their histogram: "max", "percentile",
            "entropy" or "mse".
        weight_calibrator: That of weights: "max", or "mse", which clips each group where the
            squared error of the output is smallest (of the weight, where no inputs were seen); the
            blocks of an output together. But with "gptq", a layer's bias then takes up the mean of
            that error, and the least variance is sought.
        percentile: For the calibrator of that name: the share of values kept, in percent.
        alpha: The exponent of SmoothQuant and AWQ; None searches it for each layer.
        alpha_step: The step of that search, from 0 to 1.
        sample_tokens: How many tokens of each layer's input are kept to measure errors with; None
            for 512 with AWQ, whose thresholds need them, and 256 else.
        damping: Of GPTQ: the share of the mean diagonal that is added to the diagonal.

    Raises:
        TripyException: For values outside those.

    Example:
        >>> import tripy.quantization as tq
        >>> tq.Algorithm("smoothquant", alpha=0.5).alpha
        0.5
    """

    method: str = "max"
    calibrator: str = "max"
    weight_calibrator: str = "max"
    percentile: float = 99.99
    alpha: Optional[float] = None
    alpha_step: float = 0.1
    sample_tokens: Optional[int] = None
    damping: float = 0.01

    def __post_init__(self) -> None:
        for name, legal in {
            "method": METHODS, "calibrator": CALIBRATORS, "weight_calibrator": WEIGHT_CALIBRATORS,
        }.items():  # fmt: skip
            if getattr(self, name) not in legal:
                raise _refused(f"algorithm's {name}", getattr(self, name), " or ".join(legal))
        for name, low, high in (
            ("percentile", 0, 100), ("alpha", -1e-9, 1), ("alpha_step", 0, 1), ("damping", 0, 10),
            ("sample_tokens", 0, 1 << 20),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("alpha", "sample_tokens"):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and low < value <= high):
                raise _refused(
                    f"algorithm's {name}", value, f"a number from {max(low, 0)} to {high}"
                )
        if self.alpha is not None and self.method not in ("smoothquant", "awq"):
            raise _refused(
                "algorithm's alpha", self.alpha, 'method "smoothquant" or "awq" beside it'
            )

    @property
    def tokens(self) -> int:
        """How many tokens are kept."""
        if self.sample_tokens is not None:
            return self.sample_tokens
        return 512 if self.method == "awq" else 256

    @classmethod
    def of(cls, given: Union[str, Mapping[str, Any], Algorithm, None]) -> Algorithm:
        """From a name, a dict with "method", None (max), or an Algorithm."""
        if isinstance(given, Algorithm):
            return given
        if given is None:
            return cls()
        options = {"method": given} if isinstance(given, str) else given
        if not isinstance(options, Mapping):
            raise _refused("algorithm", given, 'a name, or a dict such as {"method": "awq"}')
        options = dict(options)
        method = options.pop("method", "max")
        expanded = ALIASES.get(method, {"method": method}) if isinstance(method, str) else {}
        options = {**(expanded or {"method": method}), **options}
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise _refused("algorithm", f"unknown options {unknown}", f"of {sorted(known)}")
        return cls(**options)


@dataclass(frozen=True)
class QuantizationConfig:
    """Rules, and how scales are found.

    Args:
        rules: In order; later ones win.
        algorithm: How scales are found.
        name: For messages and reports.

    Example:
        >>> import tripy.quantization as tq
        >>> config = tq.INT8_DEFAULT_CFG.with_algorithm("max", calibrator="mse")
        >>> config.algorithm.calibrator
        'mse'
        >>> tq.QuantizationConfig.from_json(config.to_json()) == config
        True
    """

    rules: tuple[Rule, ...]
    algorithm: Algorithm = Algorithm()
    name: str = "custom"

    def with_algorithm(self, method: str, **options: Any) -> QuantizationConfig:
        """The same rules with another :class:`Algorithm`; the arguments are that class's."""
        return replace(self, algorithm=Algorithm.of({"method": method, **options}))

    def with_rules(self, *rules: Rule) -> QuantizationConfig:
        """With more rules, which win over those that are there."""
        return replace(self, rules=(*self.rules, *rules))

    def without(self, *patterns: str) -> QuantizationConfig:
        """With the quantizers of those patterns left out: for names of layers or quantizers."""
        return self.with_rules(*(Rule(pattern, enable=False) for pattern in patterns))

    def with_kv_cache(self, num_bits: Any) -> QuantizationConfig:
        """With key/value caches in 8 (int8) or (4, 3) (float8) bits, one scale each."""
        return self.with_rules(Rule("*[kv]_bmm_quantizer", (QuantizerConfig(num_bits),)))

    def with_norm_inputs(self, num_bits: Any) -> QuantizationConfig:
        """With inputs of LayerNorm in 8 (int8) or (4, 3) (float8) bits; in PyTorch models only."""
        rule = Rule("*input_quantizer", (QuantizerConfig(num_bits),), parent_class="nn.LayerNorm")
        return self.with_rules(rule)

    @classmethod
    def of(cls, given: Union[QuantizationConfig, Mapping[str, Any]]) -> QuantizationConfig:
        """From a configuration, or from the dict or list form of nvidia-modelopt.

        Args:
            given: ``{"quant_cfg": ..., "algorithm": ...}``. ``quant_cfg`` is a dict from patterns
                to attributes, in which "default" applies first wherever it stands, or a list of
                ``{"quantizer_name": pattern, "cfg": attributes, "enable": bool}``. Attributes are
                ``num_bits``, ``axis``, ``block_sizes`` (``{-1: 128}``) and ``enable``.

        Raises:
            TripyException: For another form, naming the entry.

        Example:
            >>> import tripy.quantization as tq
            >>> rules = {"*weight_quantizer": {"num_bits": 8}, "default": {"enable": False}}
            >>> [rule.pattern for rule in tq.QuantizationConfig.of({"quant_cfg": rules}).rules]
            ['*', '*weight_quantizer']
        """
        if isinstance(given, QuantizationConfig):
            return given
        if not isinstance(given, Mapping) or "quant_cfg" not in given:
            raise _refused(
                "configuration", f"{given!r:.100}", 'a preset such as INT8_DEFAULT_CFG, or a dict '
                'with "quant_cfg" and "algorithm"',
            )  # fmt: skip
        unknown = sorted(set(given) - {"quant_cfg", "algorithm", "name"}, key=str)
        if unknown:
            raise _refused(
                "configuration", f"unknown keys {unknown}", '"quant_cfg" and "algorithm"'
            )
        entries = given["quant_cfg"]
        if isinstance(entries, Mapping):
            rules = _rules_of_dict(entries)
        elif isinstance(entries, Sequence) and not isinstance(entries, str):
            rules = [_rule_of_entry(entry) for entry in entries]
        else:
            raise _refused('"quant_cfg"', f"{entries!r:.100}", "a dict or a list")
        return cls(tuple(rules), Algorithm.of(given.get("algorithm")), given.get("name", "custom"))

    def to_json(self) -> str:
        """As text; :meth:`from_json` reads it."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> QuantizationConfig:
        """From the text that :meth:`to_json` makes.

        Raises:
            TripyException: For text that is none, or of another version.
        """
        try:
            found = json.loads(text)
            version = found["version"]
        except (ValueError, KeyError, TypeError):
            raise _refused("text", f"{text!r:.60}", "JSON that to_json() has made") from None
        if version != VERSION:
            raise _refused("version", version, f"{VERSION}; it may come from a newer tripy")
        try:
            rules = tuple(
                Rule(
                    **{
                        **rule,
                        "quantizers": tuple(QuantizerConfig(**q) for q in rule["quantizers"]),
                    }
                )
                for rule in found["rules"]
            )
            return cls(rules, Algorithm(**found["algorithm"]), found["name"])
        except (KeyError, TypeError) as error:
            raise _refused("text", f"{error}", "JSON that to_json() has made") from None


def _rules_of_dict(entries: Mapping[str, Any]) -> list[Rule]:
    ordered = sorted(entries.items(), key=lambda item: item[0] != "default")
    rules = []
    for pattern, attributes in ordered:
        inner = isinstance(attributes, Mapping) and any(
            "quantizer" in str(k) or k == "*" for k in attributes
        )
        if inner:  # Patterns for layers of one class.
            rules += [_rule(name, each, True, pattern) for name, each in attributes.items()]
        else:
            rules.append(_rule("*" if pattern == "default" else pattern, attributes, True, None))
    return rules


def _rule_of_entry(entry: Any) -> Rule:
    known = {"quantizer_name", "cfg", "enable", "parent_class"}
    if not isinstance(entry, Mapping) or "quantizer_name" not in entry or set(entry) - known:
        raise _refused(
            'entry of "quant_cfg"',
            f"{entry!r:.100}",
            f"a dict with quantizer_name, of {sorted(known)}",
        )
    return _rule(
        entry["quantizer_name"],
        entry.get("cfg"),
        entry.get("enable", True),
        entry.get("parent_class"),
    )


def _rule(pattern: Any, attributes: Any, enable: Any, parent_class: Optional[str]) -> Rule:
    """A rule from the attributes of one quantizer, or from a list of several's."""
    if not isinstance(pattern, str) or not isinstance(enable, bool):
        raise _refused("rule", f"{pattern!r}, enable={enable!r}", "a pattern, and True or False")
    parts = attributes if isinstance(attributes, (list, tuple)) else [attributes or {}]
    quantizers = []
    for part in parts:
        if isinstance(part, QuantizerConfig):
            quantizers.append(part)
            continue
        if not isinstance(part, Mapping):
            raise _refused(f"rule {pattern!r}", f"{part!r:.80}", "a dict such as {'num_bits': 8}")
        options = dict(part)
        enable = options.pop("enable", True) and enable
        if options:
            quantizers.append(_quantizer(pattern, options))
    return Rule(pattern, tuple(quantizers), enable, parent_class)


def _quantizer(pattern: str, options: dict[str, Any]) -> QuantizerConfig:
    blocks = options.pop("block_sizes", None)
    options.pop("fake_quant", None)
    if options.get("axis") == -1:
        raise _refused(f"rule {pattern!r}", "axis=-1", "axis None or 0")
    if blocks is not None:
        sizes = (
            {k: v for k, v in dict(blocks).items() if k != "type"}
            if isinstance(blocks, Mapping)
            else {}
        )
        if isinstance(blocks, Mapping) and blocks.get("type", "static") != "static":
            raise _refused(
                f"rule {pattern!r}", f"block_sizes={blocks!r}", 'blocks of type "static"'
            )
        if list(map(str, sizes)) not in (["-1"], ["1"]):
            raise _refused(
                f"rule {pattern!r}", f"block_sizes={blocks!r}", "{-1: size}: blocks along in"
            )
        options["block_size"] = next(iter(sizes.values()))
    unknown = sorted(set(options) - {"num_bits", "axis", "block_size"})
    if unknown:
        raise _refused(
            f"rule {pattern!r}",
            f"unknown attributes {unknown}",
            "num_bits, axis, block_sizes, enable",
        )
    return QuantizerConfig(**options)


def _refused(what: str, got: Any, expected: str) -> TripyException:
    return TripyException(f"Quantization: the {what} is not usable.", got=got, expected=expected)
