"""Questions for lm-evaluation-harness that need no hub: over files the user has, and made by the project itself.

Each YAML file here is one task or group; this folder is what `TaskManager(include_path=...)` is given.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

HOME = Path(__file__).parent


class _Loader(yaml.SafeLoader):
    """lm_eval's YAML, with the name of a function in that function's place."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


@lru_cache(maxsize=1)
def configs() -> dict[str, dict[str, Any]]:
    """What the YAML files say, by the name of their task or group. Needs neither torch nor lm_eval."""
    found = [yaml.load(path.read_text(encoding="utf-8"), _Loader) for path in sorted(HOME.glob("*.yaml"))]
    return {config.get("group") or config["task"]: config for config in found}


def known() -> list[dict[str, Any]]:
    """A row for each task of ours.

    `name`, `group`, `about`, `version`; `metrics`; `chance`, the accuracy of a blind guess, None where there are no
    choices to guess among; `documents`, None where a file decides; `file`, what the user must have, else None.
    """
    members = {task: name for name, config in configs().items() if "group" in config for task in config["task"]}
    return [
        {
            "name": name,
            "group": members[name],
            "about": config["metadata"]["about"],
            "version": config["metadata"]["version"],
            "metrics": [metric["metric"] for metric in config["metric_list"]],
            "chance": config["metadata"].get("chance"),
            "documents": config["metadata"].get("documents"),
            "file": f"{config['dataset_kwargs']['questions']}.jsonl" if name.startswith("local_") else None,
        }
        for name, config in configs().items()
        if "task" in config and "group" not in config
    ]
