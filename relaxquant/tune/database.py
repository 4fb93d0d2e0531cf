"""MetaSchedule's database of one setting: TVM's two JSON files, checked before TVM reads them.

Every record is a line, written when it is known. A process that is killed leaves at most its last
line unfinished, which is cut off; any other damage is an error.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from ..errors import InputError
from ..kernels.tuned import Setting

WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
TRIALS = "trials.jsonl"  # what was tried when, for people and plots
FAILED_S = 1e10  # TVM's mark of a schedule that could not be built or run


def folder_of(path: Path, setting: Setting) -> Path:
    """The folder beside a result's file that holds the database of its setting."""
    digest = hashlib.sha256(json.dumps(asdict(setting), sort_keys=True).encode()).hexdigest()
    return path.with_name(f"{path.stem}.{digest[:8]}")


class TuningDatabase:
    """The records of all layers that were searched in one setting.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is missing.

    Raises
    ------
    InputError
        If the folder cannot be written, or its files are none that TVM wrote.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be made ({error.strerror}): give tune another path"
            ) from error
        workloads, records, _ = (mend(folder / name) for name in (WORKLOADS, RECORDS, TRIALS))
        # TVM trusts what it reads: another shape than its own ends the process.
        if not all(map(_is_workload, workloads)):
            raise _corrupt(folder / WORKLOADS, "a line is no workload of MetaSchedule's")
        if not all(_is_record(record, len(workloads)) for record in records):
            raise _corrupt(folder / RECORDS, "a line is no record of MetaSchedule's")
        try:
            self.tvm = ms.database.JSONDatabase(work_dir=str(folder))
        except Exception as error:  # TVM raises what its parser happens to meet
            raise _corrupt(folder, f"{type(error).__name__}") from error

    def workload(self, module: tvm.IRModule):
        """TVM's entry of what is searched over; made if it is new."""
        return self.tvm.commit_workload(module)

    def records(self, workload) -> list:
        """All records of a workload, failed ones too."""
        found = self.tvm.get_all_tuning_records()
        return [record for record in found if record.workload.same_as(workload)]

    def add(self, record, line: dict) -> None:
        """Keep a record, and say in `TRIALS` what it was."""
        self.tvm.commit_tuning_record(record)
        with open(self.folder / TRIALS, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def history(self, layer: str) -> list[dict]:
        """The lines of `TRIALS` of one layer, in order: trial, elapsed_s, ms (None: failed)."""
        path = self.folder / TRIALS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if line["layer"] == layer]


def seconds_of(record) -> float:
    """The best time of a record; `FAILED_S` where there is none."""
    return min((float(seconds) for seconds in record.run_secs or ()), default=FAILED_S)


def mend(path: Path) -> list:
    """The lines of a file, as JSON; an unfinished last one is cut off, with a warning.

    Raises
    ------
    InputError
        If another line is no JSON.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise _corrupt(path, type(error).__name__) from error
    read = []
    for number, line in enumerate(lines, 1):
        try:
            read.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) or line.endswith("\n"):
                raise _corrupt(path, f"line {number} is no JSON") from error
            warnings.warn(f"{path}: the last line was cut off and is left out", stacklevel=3)
            lines.pop()
            path.write_text("".join(lines), encoding="utf-8")
    if lines and not lines[-1].endswith("\n"):  # only the end of the line was lost
        path.write_text("".join(lines) + "\n", encoding="utf-8")
    return read


def _is_workload(line) -> bool:
    """``[hash, module]``."""
    return isinstance(line, list) and len(line) == 2 and all(isinstance(x, str) for x in line)


def _is_record(line, workloads: int) -> bool:
    """``[workload, [trace, seconds, target, arguments]]``."""
    if not (isinstance(line, list) and len(line) == 2 and isinstance(line[0], int)):
        return False
    index, record = line
    kinds = (list, list, dict, list)
    shaped = isinstance(record, list) and len(record) == len(kinds)
    return shaped and 0 <= index < workloads and all(map(isinstance, record, kinds))


def _corrupt(path: Path, why: str) -> InputError:
    return InputError(f"{path} holds no tuning database ({why}): delete it and tune again")
