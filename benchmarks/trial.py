"""A whole trial with the engine's own functions, without Kedro: train, evaluate, query, annotate, cycle after cycle."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

import trial_state
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData, annotate, client_pools, initial_pool, label_counts
from kafal_pipeline.evaluation.measures import entropy
from kafal_pipeline.evaluation.model_measures import evaluate
from kafal_pipeline.evaluation.rounds import skipped
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.cycle import train_cycle
from kafal_pipeline.federation.prediction import predict_test
from kafal_pipeline.federation.querying import query_cycle
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state
from protocol import plain
from trial_state import TrialState


class OutOfTime(Exception):
    """The budget does not reach for another round."""


class Trial:
    """A trial that can stop after any round.

    Parameters
    ----------
    config
        Its configuration.
    data, split
        The images, and each client's training indices.
    out
        Folder of the results and of the state that a restart goes on from.
    deadline
        When to stop, on `time.monotonic`'s clock.
    """

    def __init__(self, config: Config, data: ImageData, split: list[np.ndarray], out: Path, deadline: float) -> None:
        self.config, self.data, self.deadline = config, data, deadline
        self.path = out / "state.npz"
        if self.path.is_file():
            self.state = trial_state.load(self.path, plain(config))
        else:
            self.state = TrialState(initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed))

    def run(self, workers: Workers) -> bool:
        """Do what is left; return whether that reached the end."""
        first = self.state.training.cycle if self.state.training else 0
        try:
            for cycle in range(first, self.config.cycles):
                done = self._train(cycle, workers)
                self._evaluate(done, workers)
                if cycle + 1 < self.config.cycles:
                    self._query(done, workers)
        except OutOfTime:
            return False
        return True

    def _train(self, cycle: int, workers: Workers) -> CycleState:
        config, state = self.config, self.state
        if state.training is not None and state.training.round == config.federation.rounds:
            return state.training  # was stopped between two cycles
        before = last = time.monotonic()
        spent = state.seconds

        def on_round(training: CycleState) -> None:
            nonlocal last
            now = time.monotonic()
            state.training, state.seconds = training, spent + now - before
            trial_state.save(self.path, plain(config), state)
            print(f"cycle {cycle}, round {training.round}: {now - last:.2f} s", flush=True)
            if time.monotonic() + 1.5 * (now - last) > self.deadline:
                raise OutOfTime
            last = now

        start = initial_state(
            config.model,
            in_channels=self.data.channels,
            num_classes=self.data.num_classes,
            seed=config.seed,
            cycle=cycle,
            image_size=self.data.train_images.shape[1:3],
        )
        pools = client_pools(state.pool)
        return train_cycle(config, pools, start, cycle, workers, on_round, resumed=state.training)

    def _evaluate(self, done: CycleState, workers: Workers) -> None:
        start = time.monotonic()
        logits = predict_test(done.global_state, len(self.data.test_labels), workers)
        measures = evaluate(self.data.test_labels, logits)
        pool, rounds = self.state.pool, pd.DataFrame(done.rows)
        labels = int(label_counts(pool, self.data.num_classes).sum())
        asked = pool.loc[pool["labelled_in_cycle"] == done.cycle, "label"]
        histogram = np.bincount(asked, minlength=self.data.num_classes)
        sent = int(rounds["bytes_down"].sum() + rounds["bytes_up"].sum())
        steps = sum(int(row["steps"]) for row in done.rows)
        samples = sum(samples_of(row["steps"], row["labels"], self.config) for row in done.rows)
        self.state.curve.append(
            {
                "cycle": done.cycle,
                "labels": labels,
                "labelled_fraction": labels / len(pool),
                **measures,
                "classes": list(self.data.classes),
                "queried_histogram": histogram.tolist(),
                "queried_entropy": entropy(histogram) if done.cycle else None,
                "bytes_sent": sent + (self.state.queried_bytes if done.cycle else 0),
                "skipped_client_rounds": skipped(rounds),
                "steps": steps,
                "samples": samples,
                "train_seconds": self.state.seconds,
                "query_seconds": self.state.queried if done.cycle else None,
                "evaluate_seconds": time.monotonic() - start,
                "samples_per_second": samples / self.state.seconds,
            }
        )
        print(f"cycle {done.cycle}: {labels} labels, accuracy {measures['accuracy']:.4f}", flush=True)

    def _query(self, done: CycleState, workers: Workers) -> None:
        state, start = self.state, time.monotonic()
        cycle = done.cycle + 1
        answer = query_cycle(self.config, client_pools(state.pool), done, cycle, workers, state.memory)
        chosen = answer.selections
        asked = [pd.DataFrame({"client": client, "sample": of.samples}) for client, of in chosen.items()]
        state.pool = annotate(state.pool, pd.concat(asked, ignore_index=True), self.data.train_labels, cycle)
        state.memory = {client: of.memory for client, of in chosen.items() if of.memory}
        state.training, state.seconds, state.queried = None, 0.0, time.monotonic() - start
        state.queried_bytes = answer.bytes_down + answer.bytes_up


def samples_of(steps: float, labels: float, config: Config) -> int:
    """Training samples, labelled and unlabelled, of one client's round."""
    training = config.training
    return int(steps * training.batch_size + training.local_epochs * labels)
