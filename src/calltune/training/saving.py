"""A run with its files: resumed from its last checkpoint, trained to its end, saved on the way."""

from calltune.errors import OptionError
from calltune.training import adapter, checkpoint
from calltune.training.checkpoint import Position, truncate_run
from calltune.training.logging import RunLogger
from calltune.training.loop import SaveCallbacks
from calltune.training.run import Run
from calltune.training.step import TrainState, Weights
from calltune.training.trackers import open_trackers
from calltune.types import Json


def train(run: Run, run_fingerprint: Json, config: dict[str, Json]) -> None:
    """Train from the beginning, or from where an interrupted run was; write the adapter.

    The files go to the folder `adapter_path` of the run's options. A checkpoint there is taken up
    if it has the same `run_fingerprint`, which says what decides the weights. `config` is written
    to adapter_config.json, beside what mlx_lm needs.

    Raises:
        OptionError: several processes found different checkpoints, or a tracker does not start.
        OutputError: a file cannot be written; checkpoints written before are kept.
        Diverged: a loss or a weight is not finite; checkpoints written before are kept.
    """
    _SavedRun(run, run_fingerprint, config | run.adapter_config).train()


class _SavedRun:
    def __init__(self, run: Run, run_fingerprint: Json, config: dict[str, Json]) -> None:
        self._run, self._fingerprint, self._config = run, run_fingerprint, config
        self._folder = run.options.adapter_path

    def train(self) -> None:
        trained, start = self._resume()
        with self._logger(start) as logger:
            self._run.fill_cache(logger)
            if start.step == 0 and self._run.valid_rows and self._run.group.is_rank0:
                # They may be those of an earlier run, and no step may make them better.
                self._save_best(trained.weights)
            callbacks = SaveCallbacks(self._save, self._save_best)
            self._run.loop(logger, callbacks).run(trained, start)
        self._run.group.barrier()

    def _resume(self) -> tuple[TrainState, Position]:
        """The state to start from: the last checkpoint of this run, or none."""
        is_rank0, begun = self._run.group.is_rank0, self._run.trained
        found = checkpoint.latest(self._folder / "state", self._fingerprint)
        self._agree_on(0 if found is None else found.position.step)
        if is_rank0:
            truncate_run(self._folder, 0 if found is None else found.position.step)
        if found is None:
            return begun, Position()
        print(f"Resuming after step {found.position.step}, where the run was interrupted")
        # In the order of an uninterrupted run: sums over the weights round by it.
        weights = {name: found.trained.weights[name] for name in begun.weights}
        trained = TrainState(weights, found.trained.optimizer)
        if is_rank0:
            # The run may have been killed between its checkpoint and its adapter.
            self._save_adapter(trained, found.position)
        return trained, found.position

    def _agree_on(self, step: int) -> None:
        """See that every process resumes after the same step, once all have looked."""
        group = self._run.group
        (total,) = group.sum_numbers(step)
        if total != step * group.size:
            raise OptionError(
                f"The group found different checkpoints in {self._folder / 'state'}; put "
                "--adapter-path on a disk that they share, or remove that folder to start again"
            )

    def _logger(self, start: Position) -> RunLogger:
        is_rank0 = self._run.group.is_rank0
        names = self._run.options.report_to if is_rank0 else ()
        return RunLogger(
            self._run.schedule.iters,
            self._folder / "metrics.jsonl" if is_rank0 else None,
            first_step=start.step,
            trackers=open_trackers(names, self._folder, self._config, first_step=start.step),
            shown=is_rank0,
            first_tokens=start.tokens,
            first_elapsed_s=start.elapsed_s,
            unreported=start.unreported,
        )

    def _save(self, trained: TrainState, position: Position) -> None:
        checkpoint.save(self._folder / "state", trained, position, self._fingerprint)
        self._save_adapter(trained, position)

    def _save_adapter(self, trained: TrainState, position: Position) -> None:
        options = self._run.options
        # A save that falls due within a group of accumulated batches waits for the group's end.
        is_numbered = position.step % options.save_every < options.grad_accumulation_steps
        weights = self._run.adapter_weights(trained.weights)
        number = position.step if is_numbered else None
        adapter.save(self._folder, weights, self._config, number, options.keep_checkpoints)

    def _save_best(self, weights: Weights) -> None:
        adapter.save(self._folder / "best", self._run.adapter_weights(weights), self._config)
