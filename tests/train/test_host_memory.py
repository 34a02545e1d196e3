"""Large tensors come from memory that the process already has."""

import platform
import resource

import pytest
import torch

from yolo.train.host_memory import keep_freed_memory

TENSOR_MB = 64
PAGES = TENSOR_MB * 2**20 // resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_a_freed_tensors_memory_is_used_again():
    assert keep_freed_memory()
    for _ in range(16):  # the heap grows to its size
        torch.ones(TENSOR_MB * 2**18)  # float32
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(TENSOR_MB * 2**18)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < PAGES / 4  # mapped anew, each of the 8 would cost PAGES, or PAGES / 512 if huge
