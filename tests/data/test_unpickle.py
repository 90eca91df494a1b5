"""The unpickler reads CIFAR's own pickles, literal here byte by byte, and runs nothing else."""

import codecs
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from refusing import check_refusals
from smoothed.data.unpickle import read_pickle
from smoothed.errors import DataError

PIXELS = b"\x00\x01\x7f\x80\xfe\xff"


def official(module=b"numpy.core.multiarray", shape=b"K\x02K\x03\x86", kind=b"u1", flags=b"K\x00", fortran=b"\x89"):
    """What Python 2 wrote for `{"data": <uint8 array>, "labels": [6, 9]}`, as the official files hold it."""
    return (
        b"\x80\x02}q\x00(U\x04dataq\x01c" + module + b"\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01" + shape + b"q\x08cnumpy\ndtype\nq\tU\x02" + kind + b"q\nK\x00K\x01\x87q\x0b"
        b"Rq\x0c(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        + flags
        + b"tq\x0eb"
        + fortran
        + b"U\x06"
        + PIXELS
        + b"q\x0ftq\x10bU\x06labelsq\x11]q\x12(K\x06K\x09eu."
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data_batch_1"


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_reads_what_python_2_wrote(path, module):
    path.write_bytes(official(module))
    content = read_pickle(path)
    assert sorted(content) == [b"data", b"labels"]
    assert content[b"labels"] == [6, 9]
    assert content[b"data"].dtype == np.uint8
    assert content[b"data"].tolist() == [[0, 1, 127], [128, 254, 255]]


def test_reads_an_array_in_columns(path):
    path.write_bytes(official(fortran=b"\x88"))
    assert read_pickle(path)[b"data"].tolist() == [[0, 127, 254], [1, 128, 255]]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_this_numpy_writes(path, protocol, order):
    array = np.random.default_rng(0).integers(0, 256, (4, 5), dtype=np.uint8)
    content = {b"data": np.asarray(array, order=order), b"fine_labels": [1, 2, 3, 4], b"names": [b"a", "b"], b"x": None}
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(path)
    np.testing.assert_array_equal(found.pop(b"data"), array)
    assert found == {b"fine_labels": [1, 2, 3, 4], b"names": [b"a", "b"], b"x": None}


def test_a_truncated_file(path):
    def read(end):
        path.write_bytes(official()[:end])
        read_pickle(path)

    message = r"data_batch_1: truncated or damaged \(.+\); download it again"
    check_refusals(read, [({"end": end}, message) for end in range(len(official()))], DataError)


def test_a_single_wrong_byte_is_an_error_or_a_dict_but_never_a_crash(path):
    # Numpy's own `__setstate__` crashes the process on some of these.
    content = official()
    for place in range(2, len(content)):
        for value in {ord("K"), ord("N"), ord("."), 0, 63, 255, content[place] ^ 1} - {content[place]}:
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                assert isinstance(read_pickle(path), dict)
            except DataError as error:
                assert "data_batch_1" in str(error)  # noqa: PT017 - either way is fine


def test_flags_of_a_type_are_not_passed_to_numpy(path):
    path.write_bytes(official(flags=b"K\x3f"))  # numpy takes them for those of uint8, and crashes on clean-up
    assert read_pickle(path)[b"data"].tolist() == [[0, 1, 127], [128, 254, 255]]


@pytest.mark.parametrize("kind", [b"O8", b"f4", b"V1", b"u2"])
def test_arrays_of_other_types_are_refused(path, kind):
    path.write_bytes(official(kind=kind))
    with pytest.raises(
        DataError, match=re.escape(f"expected arrays of uint8 and plain values, got an array of {kind}")
    ):
        read_pickle(path)


@pytest.mark.parametrize("shape", [b"K\x02K\x04\x86", b"K\x00K\x00\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"])
def test_a_shape_that_does_not_fit_its_bytes(path, shape):
    path.write_bytes(official(shape=shape))
    with pytest.raises(DataError, match="truncated or damaged"):
        read_pickle(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: {b"data": call}, lambda call: {call: 1}])
def test_a_call_is_refused_and_not_made(path, tmp_path, protocol, wrap):
    trace = tmp_path / "ran"
    path.write_bytes(pickle.dumps(wrap(Call(eval, f"open({str(trace)!r}, 'w').close()")), protocol))
    with pytest.raises(DataError, match=r"got (builtins|__builtin__)\.eval; do not trust this file"):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("codecs", "encode"),
        ("_codecs", "lookup"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("smoothed.data.unpickle", "read_pickle"),
    ],
)
@pytest.mark.parametrize("opcode", ["global", "stack_global"])
def test_no_other_name_is_resolved(path, module, name, opcode):
    if opcode == "global":
        named = b"\x80\x02c" + f"{module}\n{name}\n".encode()
    else:
        parts = (part.encode() for part in (module, name))
        named = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part for part in parts) + b"\x93"
    trace = path.parent / "ran"
    argument = f"touch {trace}".encode()
    path.write_bytes(named + b"U" + bytes([len(argument)]) + argument + b"\x85R.")
    with pytest.raises(DataError, match=f"got .*{re.escape(name)}; do not trust this file"):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "value", [torch.zeros(2), torch.nn.Linear(1, 1), Path("x"), np.float64(1), np.array(["a"], dtype=object), {1}, 1j]
)
def test_other_objects_are_refused(path, value):
    path.write_bytes(pickle.dumps({b"data": value}, 2))
    with pytest.raises(DataError, match="do not trust this file"):
        read_pickle(path)


def test_a_torch_file(path):
    torch.save({"data": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="data_batch_1"):
        read_pickle(path)


def test_no_other_encoding(path):
    path.write_bytes(pickle.dumps({b"data": Call(codecs.encode, "nop", "rot13")}, 2))
    with pytest.raises(DataError, match="got the encoding rot13; do not trust this file"):
        read_pickle(path)


@pytest.mark.parametrize("value", [[1, 2], 5, None, "text"])
def test_no_dict(path, value):
    path.write_bytes(pickle.dumps(value, 2))
    with pytest.raises(DataError, match=f"expected a dict, got {type(value).__name__}; this is not a CIFAR file"):
        read_pickle(path)


def test_a_missing_file(path):
    with pytest.raises(DataError, match="data_batch_1: expected a file of CIFAR's Python version, found none"):
        read_pickle(path)


def test_a_folder_in_place_of_the_file(path):
    path.mkdir()
    with pytest.raises(DataError, match=r"data_batch_1: could not be read \(Is a directory\)"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"<!DOCTYPE html>", b"\x1f\x8b\x08\x00", bytes(1000), b"\xff" * 99])
def test_a_file_that_is_no_pickle(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match="truncated or damaged"):
        read_pickle(path)
