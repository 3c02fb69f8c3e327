"""What a run's record keeps apart when it is taken up for the second time."""

from pathlib import Path
from typing import Any

from gyoza.models import OpRun
from gyoza.worker.run_record import Position, RunRecord

UNTOLD = Position((0, 0))
TOLD = Position((5, 0))


def info(seq: int) -> dict[str, Any]:
    return {"seq": seq, "type": "INFO", "msg": "x", "payload": {}, "summary": None}


def killed_before_its_mark(record: RunRecord, *events: dict[str, Any]) -> RunRecord:
    """Take output with these events, and be killed between the journal and the mark."""
    mark = (record.directory / "mark").read_bytes()
    record.note_output("", events, TOLD)
    (record.directory / "mark").write_bytes(mark)
    return reopen(record)


def reopen(record: RunRecord) -> RunRecord:
    record.close()
    return RunRecord.load(record.directory)


def test_an_event_taken_anew_by_the_second_life_is_told_once_by_the_third(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path / "r.1", OpRun("r", image="i", inputs={}))
    record.note_output("", [info(1)], UNTOLD)
    second = killed_before_its_mark(record, info(2))
    anew = info(second.next_seq)
    second.note_output("", [anew], TOLD)
    third = reopen(second)
    assert third.unsent == [info(1), anew]
    fourth = reopen(third)
    assert fourth.unsent == [info(1), anew]
    fourth.close()
