"""What must outlive the worker's process of a run: the files of its run directory."""

from gyoza.worker.run_record.record import EventCount, Exit, Position, RunRecord, run_dir

__all__ = ["EventCount", "Exit", "Position", "RunRecord", "run_dir"]
