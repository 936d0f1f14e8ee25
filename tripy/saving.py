"""Files of compiled functions: safetensors whose metadata holds the program as JSON.

The format (version 1): metadata ``tripy_format`` "1", ``program`` the JSON, ``program_digest`` and
``tensor_digests`` BLAKE2 checksums. Tensors are named by their number among the graph's constants;
int4 is packed two to a byte, the first element in the low half.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import safetensors
import safetensors.torch
import torch

from tripy import dtypes
from tripy.backends.registry import BACKENDS
from tripy.backends.torch import storage
from tripy.device import device as Device
from tripy.errors import TripyException
from tripy.files import digest, replacing
from tripy.graph.serialize import graph_from_json, graph_to_json
from tripy.graph.verifier import InvalidGraph, verify
from tripy.input_info import DimensionInputInfo, InputInfo, NamedDimension
from tripy.structure import structure_from_json

if TYPE_CHECKING:
    from tripy.executable import Executable

FORMAT = "1"
# Stands for the data of a constant that is in an engine.
ELSEWHERE = object()


def _bytes(tensor: torch.Tensor) -> Any:
    return storage.bytes_of(tensor).numpy()


def _alone(tensor: torch.Tensor, taken: set[int]) -> torch.Tensor:
    """The tensor in memory of its own: the format has no word for views of one another."""
    memory = tensor.untyped_storage()
    whole = tensor.is_contiguous() and memory.nbytes() == tensor.nbytes
    if not whole or memory.data_ptr() in taken:
        return tensor.clone(memory_format=torch.contiguous_format)
    taken.add(memory.data_ptr())
    return tensor


def save(executable: Executable, path: Union[str, os.PathLike]) -> None:
    """Write a file under a temporary name, then give it its own."""
    program = executable._program
    graph, constants = graph_to_json(program.portable_graph())
    tensors: dict[str, torch.Tensor] = {}
    digests: dict[str, str] = {}
    stored: dict[tuple, str] = {}
    taken: set[int] = set()
    for number, value in enumerate(constants):
        tensor = program.constant(value)
        if tensor is None:  # It is in one of the parts below.
            graph["constants"][number]["tensor"] = None
            continue
        tensor = tensor.cpu()
        if value.dtype is dtypes.int4:
            tensor = storage.pack_int4(tensor)
        checksum = digest(_bytes(tensor))
        key = (checksum, tensor.dtype, tuple(tensor.shape))
        graph["constants"][number]["tensor"] = stored.setdefault(key, str(number))
        if stored[key] == str(number):
            tensors[str(number)] = _alone(tensor, taken)
            digests[str(number)] = checksum
    described, parts = program.saved_parts()
    tensors |= parts
    digests |= {name: digest(_bytes(part)) for name, part in parts.items()}
    text = json.dumps(
        {
            "graph": graph,
            "device": executable.device.kind,
            "backend": executable._backend_name,
            "described": described,
            "parameters": [
                [p.name, p.kind.name] for p in executable.__signature__.parameters.values()
            ],
            "arguments": {n: s.to_json() for n, s in executable._structures.items()},
            "result": executable._result.to_json(),
            "inputs": {path: _info_to_json(i) for path, i in executable.input_infos.items()},
        }
    )
    metadata = {
        "tripy_format": FORMAT,
        "program": text,
        "program_digest": digest(text.encode()),
        "tensor_digests": json.dumps(digests),
    }
    _write(Path(path), tensors, metadata)


def _write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write under another name first, so that a failure leaves what was there."""
    try:
        with replacing(path) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata)
    except (OSError, safetensors.SafetensorError) as error:
        raise TripyException(
            "Executable.save: the file cannot be written; nothing was changed.",
            got=f"{path}: {error}",
            expected="a path in a folder that exists, may be written to and has room",
        ) from error


def _info_to_json(info: Union[InputInfo, DimensionInputInfo]) -> Any:
    if isinstance(info, DimensionInputInfo):
        return {"bounds": list(info.value_bounds)}
    shape = [[info.dimension_names.get(i), *bounds] for i, bounds in enumerate(info.shape_bounds)]
    return {"shape": shape, "dtype": info.dtype.name}


def _info_from_json(data: Any) -> Union[InputInfo, DimensionInputInfo]:
    if "bounds" in data:
        return DimensionInputInfo(tuple(data["bounds"]))
    shape = [tuple(b) if name is None else NamedDimension(name, *b) for name, *b in data["shape"]]
    return InputInfo(shape, dtypes.BY_NAME[data["dtype"]])


def _refused(path: Any, why: str, hint: Optional[str] = None) -> TripyException:
    return TripyException(
        f"Executable.load: {why}.",
        got=str(path),
        expected=f"a file written by Executable.save, format {FORMAT}",
        hint=hint,
    )


def load(cls: type[Executable], path: Union[str, os.PathLike], where: Optional[Device]) -> Any:
    """Read, check and prepare a program."""
    start = time.perf_counter()
    if where is not None:
        where = Device(where)
        storage.torch_device(where)  # Raises for a device that is not there.
    if not os.path.isfile(path):
        raise _refused(path, "it is a folder" if os.path.isdir(path) else "there is no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return _load(cls, file, path, where, start)
    except safetensors.SafetensorError as error:
        raise _refused(path, f"the file is damaged or not tripy's ({error})") from error
    except OSError as error:
        raise _refused(path, f"the file cannot be read ({error})") from error
    except TripyException as error:
        if error.summary.startswith("Executable.load"):
            raise
        raise _refused(path, f"the program in the file makes no sense ({error.summary})") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, InvalidGraph) as error:
        raise _refused(path, f"the program in the file makes no sense ({error!r})") from error


def _load(
    cls: type[Executable], file: Any, path: Any, where: Optional[Device], start: float
) -> Any:
    metadata = file.metadata() or {}
    if "tripy_format" not in metadata:
        raise _refused(path, "the file is not a compiled function of tripy's")
    if metadata["tripy_format"] != FORMAT:
        raise _refused(
            path,
            f"the file has format {metadata['tripy_format']}",
            "compile and save again with this version of tripy",
        )
    if digest(metadata["program"].encode()) != metadata["program_digest"]:
        raise _refused(path, "the program in the file was altered")
    program, digests = json.loads(metadata["program"]), json.loads(metadata["tensor_digests"])
    kind = program["device"]
    where = where or Device(kind)
    if where.kind != kind:
        raise _refused(path, f"the program was compiled for the {kind}, not for {where}")
    backend = BACKENDS[program["backend"]]
    reason = backend.misfit(program["described"], where)
    if reason is not None:
        raise TripyException(
            f"Executable.load: the program cannot run on {where}.",
            got=f"{os.fspath(path)}: {reason}",
            expected="a device and libraries that the program was compiled for",
            hint="tp.compile on this machine",
        )
    graph_json = program["graph"]

    def intact(name: str) -> torch.Tensor:
        tensor = file.get_tensor(name)
        if digest(_bytes(tensor)) != digests[name]:
            raise _refused(path, f"constant {name} in the file is damaged")
        return tensor

    def constant(number: int, dtype: dtypes.dtype) -> Any:
        saved = graph_json["constants"][number]
        name, shape = saved["tensor"], saved["shape"]
        if name is None:
            return ELSEWHERE
        tensor = intact(name)
        if dtype is dtypes.int4 and tensor.dtype is torch.uint8:
            tensor = storage.unpack_int4(tensor, shape)
        if list(tensor.shape) != shape or tensor.dtype is not storage.TORCH_TYPES[dtype]:
            raise _refused(path, f"constant {name} in the file has another shape or type")
        # A copy: the file's pages are let go of as soon as it is closed.
        return tensor.to(storage.torch_device(where), copy=True)

    graph = graph_from_json(graph_json, where, constant)
    verify(graph, "loading")
    numbered = {saved["tensor"] for saved in graph_json["constants"]}
    parts = {name: intact(name).clone() for name in digests if name not in numbered}
    prepared = backend.load(graph, where, program["described"], parts)
    parameters = [
        inspect.Parameter(name, getattr(inspect._ParameterKind, kind))
        for name, kind in program["parameters"]
    ]
    return cls(
        prepared,
        where,
        inspect.Signature(parameters),
        {name: structure_from_json(s) for name, s in program["arguments"].items()},
        {name: _info_from_json(info) for name, info in program["inputs"].items()},
        structure_from_json(program["result"]),
        backend_name=backend.name,
        backend=f"{backend.name} on {where}: as saved in {os.path.basename(path)}",
        compile_seconds=time.perf_counter() - start,
    )
