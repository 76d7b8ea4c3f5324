"""Every op tells which of its forms ran: what a record's `provenance.kernels` is made of."""

import pkgutil

import pytest
import torch

import zoo.ops
from zoo.ops import forms
from zoo.ops.kernel_log import log_kernel, record_kernels

from .cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_an_op_reports_its_form(form, name):
    case = CASES[name]
    with torch.no_grad(), record_kernels() as kernels:
        case.fast(*(x.to(torch.complex64 if x.is_complex() else torch.float32) for x in case.inputs))
    assert case.op in kernels
    if form == "torch":
        assert all("loop" not in ran and " on " not in ran for ran in kernels.values())
    elif (listed := forms.CPU.get(case.op)) and not listed.matmul:
        assert kernels[case.op] == listed.name


def test_every_op_is_here():
    own = {case.op for case in CASES.values()}
    ops = {module.name for module in pkgutil.iter_modules(zoo.ops.__path__) if module.ispkg}
    assert ops - own == {"cpu", "elementwise", "norms"}  # the functions of the last two report themselves


def test_several_forms_of_an_op_stand_in_order():
    with record_kernels() as outer, record_kernels() as kernels:
        for form in ("torch", "compiled loop", "torch"):
            log_kernel("scan", form)
    assert kernels == outer == {"scan": "torch; compiled loop"}
    with record_kernels(kernels):
        log_kernel("scan", "another")
    log_kernel("scan", "unheard")
    assert kernels == {"scan": "torch; compiled loop; another"}
