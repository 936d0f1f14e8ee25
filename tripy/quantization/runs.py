"""What computes a quantized layer, and why it is faster than floating point, or slower.

``Executable.report()`` names the kernel of each layer on the machine at hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tripy.quantization.state import LinearState

INT8 = "int8 GEMM: int8 x int8, int32 sums"
INT8_WEIGHT = "int8 weight, float input"
INT8_BLOCKS = "int8 weight expanded, float GEMM"
INT4_WEIGHT = "int4 weight expanded, float GEMM"
INT4_INT8 = "int4 weight, int8 input"
FLOAT8 = "float8, emulated in float32"
FLOAT8_WEIGHT = "float8 weight expanded, float GEMM"
CONVOLUTION = "int8 convolution: int8 x int8, int32 sums"
CONVOLUTION_WEIGHT = "weight expanded, float convolution"
INPUT_ONLY = "input rounded only"
EXPORT_ONLY = "not in tripy: for export"
FLOAT = "float GEMM"

# For each, what makes it faster or slower than floating point, on a CPU.
SPEED = {
    INT8: (
        "The product itself is of small numbers, in oneDNN's int8 kernel, on a CPU with VNNI or "
        "AMX instructions: a quarter of float32's bytes, and faster arithmetic. Without these "
        "instructions the integers are multiplied in float32, which is not faster."
    ),
    INT8_WEIGHT: (
        "Saves bytes, not arithmetic: it helps most where reading weights takes the time (one "
        "token at a time), and little for many rows at once. For arithmetic in int8, quantize the "
        "inputs too (INT8_DEFAULT_CFG)."
    ),
    INT8_BLOCKS: (
        "No int8 kernel takes one scale a block: the weight is expanded to floating point at each "
        "call. One scale an output (axis=0) is faster."
    ),
    INT4_WEIGHT: (
        "Saves bytes, not arithmetic: it helps most where reading weights takes the time (one "
        "token at a time). The weight is expanded at each call, except that torch's int4 kernel "
        "takes few rows of a bfloat16 model as they are."
    ),
    INT4_INT8: (
        "No CPU has an int8 x int4 instruction: the weight is unpacked at each call, and rounding "
        "the inputs is more work still. It is a format for accelerators; on a CPU int4 weights "
        "alone are faster."
    ),
    FLOAT8: (
        "CPUs have no float8 instructions: it is emulated in float32, with rounding on top. It "
        "shows what hardware with float8 would compute, not its speed."
    ),
    FLOAT8_WEIGHT: (
        "Saves bytes, not arithmetic: CPUs have no float8 instructions, and the weight is "
        "expanded at each call."
    ),
    CONVOLUTION: (
        "On a CPU with VNNI or AMX instructions in oneDNN's int8 kernel; shapes that it computes "
        "wrongly or not at all are left to exact arithmetic in floating point, and the compiled "
        "function's report() says which."
    ),
    CONVOLUTION_WEIGHT: (
        "Saves bytes, not arithmetic: the weight is expanded to floating point, and float8 is "
        "emulated."
    ),
    INPUT_ONLY: ("Rounds inputs and multiplies in floating point: it saves nothing."),
    EXPORT_ONLY: (
        "tripy.Linear holds one format for a weight, with inputs that fit it. Such a layer can be "
        "exported; in PyTorch it computes in floating point, to measure quality."
    ),
}


def what_runs(state: LinearState) -> str:
    """What computes the layer after ``to_tripy`` and ``tp.compile`` for a CPU."""
    if not state.weight_quantizers:
        return FLOAT if state.input_quantizer is None else INPUT_ONLY
    weight, inputs = state.weight_quantizers[0].config, state.input_quantizer
    name = weight.format.name
    wanted = "fp8" if name == "fp8" else "int8"
    misfit = inputs is not None and inputs.config.format.name != wanted
    if len(state.weight_quantizers) > 1 or misfit:
        return EXPORT_ONLY
    if state.kind in ("Conv", "ConvTranspose"):
        return CONVOLUTION if name == "int8" and inputs is not None else CONVOLUTION_WEIGHT
    blocks = weight.block_size is not None
    if name == "int8":
        if blocks:
            return INT8_BLOCKS
        return INT8_WEIGHT if inputs is None else INT8
    if name == "int4":
        return INT4_WEIGHT if inputs is None else INT4_INT8
    return FLOAT8_WEIGHT if inputs is None or blocks else FLOAT8


def speed_notes(
    runs: Sequence[str], torch_model: bool, fake: bool, quantized: bool
) -> tuple[str, ...]:
    """The answer to "why is it slower", in sentences.

    Args:
        runs: What runs each quantized layer.
        torch_model: Whether the model is PyTorch's, not tripy's.
        fake: Whether it rounds and computes in floating point.
        quantized: Whether any layer is quantized.
    """
    if not quantized:
        return ("No linear layer is quantized: the model runs as it always did.",)
    notes = []
    if torch_model and fake:
        notes.append(
            "This PyTorch model is slower than before, by design: each quantized layer rounds "
            "its weight and its input, and then multiplies in floating point. It shows what "
            "quantization costs in quality; its weights take as many bytes as before. What is "
            "fast is tq.to_tripy(model, module), then tp.compile(module, args)."
        )
    elif not torch_model:
        notes.append(
            "This tripy Module holds the small weights. Called by itself it computes operation "
            "by operation, expanding weights first, which is slow; tp.compile(module, args) "
            "makes one kernel of a layer."
        )
    notes.append(
        "Compiled for a CPU, layers run as follows; the compiled function's report() names "
        "the kernel of each on your machine."
    )
    for run, count in Counter(runs).most_common():
        notes.append(f"{count} {'layer' if count == 1 else 'layers'}: {run}. {SPEED[run]}")
    notes.append(
        'On an NVIDIA GPU, backend="torch" has kernels of its own for int8, int4 and float8; '
        "which one runs a layer, or why none does, is in the compiled function's report()."
    )
    return tuple(notes)
