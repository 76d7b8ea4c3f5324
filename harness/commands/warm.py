"""`zoobench warm`."""

from contextlib import suppress
from functools import partial

import click

from harness.commands.common import console
from harness.errors import UserError
from zoo.types import Role

ROLES: tuple[Role, ...] = ("lm", "classify", "masked")
"""What one input makes: other roles run the same loops."""


@click.command()
@click.argument("names", nargs=-1, metavar="[ARCH...]")
def command(names: tuple[str, ...]) -> None:
    """Compile the CPU's loops ahead, so that no run waits for them.

    Each ARCH, by default every one, makes a few small steps in each precision. The machine code that they need is kept
    for this version of zoobench and this machine.
    """
    import torch

    from zoo import architectures
    from zoo.ops import forms

    if unknown := [name for name in names if name not in architectures.names()]:
        raise UserError(f"there is no architecture {unknown[0]!r}; `zoobench ls` lists them")
    if not forms.available():
        click.echo(f"nothing to compile: {forms.failures[0] if forms.failures else 'numba is not here or turned off'}")
        return
    from zoo.ops.cpu import cache

    torch.set_num_threads(1)  # steps are small
    compiled, every = list[str](), names or architectures.names()
    with console().status("starting") as status:
        for i, name in enumerate(every, start=1):
            status.update(f"{name} ({i} of {len(every)}; {len(compiled)} loops compiled)")
            forms.on_compile[:] = [partial(compiled.append, name)]
            _run(name)
    click.echo(f"{len(compiled)} loops compiled; machine code is kept in {cache.folder() or 'no folder: see above'}")


def _run(name: str) -> None:
    """Make steps of small models of an architecture, in its roles and each precision, and read without gradients."""
    import torch

    from harness import machine
    from harness.bench.subject import Subject, loss
    from harness.training.optimizer import descend
    from tasks.parts import Part
    from zoo import Unsupported, architectures

    depth, device = 2 * len(architectures.recipe(name).mixers), torch.device("cpu")
    for role in ROLES:
        subject = Subject(name, 128, 4, "auto", role, width=64, depth=depth)
        with suppress(Unsupported, ValueError):  # that role, or that size
            model, batch = subject.build(device), subject.example()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            for precision in ("fp32", "bf16"):
                descend(
                    model.train(),
                    [Part(batch)],
                    loss,
                    optimizer,
                    autocast=machine.autocast(device, precision),
                    clip=1.0,
                )
                with torch.no_grad(), machine.autocast(device, precision):
                    model.eval()(batch)
