"""What must outlive the worker's process of a run: the files of its run directory."""

from gyoza.worker.run_record.record import Exit, Position, RunRecord, run_dir

__all__ = ["Exit", "Position", "RunRecord", "run_dir"]
