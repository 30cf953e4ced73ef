"""One of two processes that train presets together: `RANK=0 ... python two_processes.py FOLDER PRESET...`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from presets import STARTS_FROM, arguments, composed

from vaelab.experiment import assemble as assembly
from vaelab.experiment import run

SHORT = (
    "callbacks=quiet",
    "logger=none",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
)


def main() -> None:
    folder, presets = Path(sys.argv[1]), sys.argv[2:]
    modules = []
    build_module = assembly.build_module
    assembly.build_module = lambda *a: modules.append(build_module(*a)) or modules[-1]
    found = {}
    wanted = {STARTS_FROM[p][0] for p in presets if p in STARTS_FROM}
    for preset in sorted(wanted) + [p for p in presets if p not in wanted]:
        words = [*arguments(preset, folder), *SHORT]
        run(composed(*words), directory=folder / preset, overrides=words)
        digest = hashlib.sha256()
        for name, value in sorted(modules[-1].state_dict().items()):
            digest.update(name.encode() + value.double().numpy().tobytes())
        found[preset] = {"weights": digest.hexdigest(), "steps": modules[-1].batches_seen}
    import torch.distributed as dist

    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
