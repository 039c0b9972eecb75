"""Groups of runs: those that differ only in their seed, or in settings that do not change what is trained."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fastdat.report.runs import RunRecord
from fastdat.util.free_settings import FREE

_OFF: tuple[object, ...] = (None, False, 0, "none", [])
_COSINE = "cosine."


@dataclass(frozen=True)
class Group:
    """Runs that repeat one training with other seeds; a run that nothing repeats is a group of its own.

    Args:
        label: the run's name, or what the names of the runs have in common.
        members: positions of the runs on the page.
        seeds: of each of them; training is deterministic, so runs that share a seed are copies.
    """

    label: str
    members: Sequence[int]
    seeds: Sequence[str]

    @property
    def several(self) -> bool:
        """Whether there is more than one run in the group."""
        return len(self.members) > 1

    @property
    def counted(self) -> str:
        """``2 seeds``; ``2 runs`` if they share a seed."""
        count = len(self.members)
        return f"{count} {'seed' if len(set(self.seeds)) == count else 'run'}{'s' * (count > 1)}"

    @property
    def title(self) -> str:
        """``dcgan (2 seeds)``; of a single run its name."""
        return f"{self.label} ({self.counted})" if self.several else self.label


def group_runs(runs: Sequence[RunRecord]) -> list[Group]:
    """The groups of ``runs``, in the order of their first runs."""
    members: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        # Nets that a user brought along are in no configuration: equal settings do not mean equal nets.
        repeatable = run.config.get("model") is not None
        key = json.dumps(training_settings(run), sort_keys=True, default=str) if repeatable else f"{number}"
        members.setdefault(key, []).append(number)
    names = [_common_name([runs[i].label for i in numbers]) for numbers in members.values()]
    taken = Counter([*names, *(run.label for run in runs)])
    return [
        Group(
            label=name
            if len(numbers) == 1 or taken[name] == 1
            else ", ".join(runs[i].label for i in numbers),
            members=numbers,
            seeds=[str(runs[i].config.get("seed")) for i in numbers],
        )
        for name, numbers in zip(names, members.values(), strict=True)
    ]


def training_settings(run: RunRecord) -> dict[str, object]:
    """The settings of a run that change what is trained, without the seed and without what is switched off.

    A version that did not have a setting yet trained as the later ones do with the setting switched off.
    """
    config = run.config
    cosine = [key for key, value in config.items() if key.startswith(_COSINE) and not _is_off(key, value)]
    moves = config.get("lr_decay") != "none" or bool(cosine and config.get("cosine.steps") is None)
    counted = {
        *(("data",) if config.get("dataset") == "folder" else ()),  # the path alone says which images
        *(("steps",) if moves else ()),  # learning rates, or other settings, depend on it
    }
    return {
        key: value
        for key, value in config.items()
        if not _is_off(key, value) and (key in counted or key.partition(".")[0] not in FREE | {"seed"})
    }


def _is_off(key: str, value: object) -> bool:
    """Whether a setting is switched off; a setting that moves along a cosine may move to 0."""
    return value is None or value is False if key.startswith(_COSINE) else value in _OFF


def differing_settings(runs: Sequence[RunRecord]) -> list[str]:
    """The settings that change what is trained and are not the same in all of ``runs``."""
    settings = [training_settings(run) for run in runs]
    return [
        key
        for key in dict.fromkeys(key for run in settings for key in run)
        if len({json.dumps(run.get(key), default=str) for run in settings}) > 1
    ]


def _common_name(labels: Sequence[str]) -> str:
    """``dcgan`` for ``dcgan-0`` and ``dcgan-1``; all the names if they begin differently."""
    if len(labels) == 1:
        return labels[0]
    count = 0
    while all(label[count : count + 1] == labels[0][count : count + 1] != "" for label in labels):
        count += 1
    within_a_word = any(label[count : count + 1].isalpha() for label in labels)  # "b" of "best" and "base"
    if within_a_word:
        count = len(re.sub("[A-Za-z]+$", "", labels[0][:count]))
    # A digit at the end belongs to the seeds (10, 11), and so do the word before it and the signs around it.
    common = re.sub(r"([^A-Za-z0-9]*(?<![A-Za-z0-9])(seed|s))?[^A-Za-z0-9]*[0-9]*$", "", labels[0][:count])
    return common or ", ".join(labels)
