"""Records a run in MLflow: a journal on disk, and a helper process that delivers it.

The training process never imports mlflow. It appends events to a journal; the helper,
`kafal_pipeline.tracking.deliver`, follows the journal and brings it to the tracker. A tracker that is slow or down thus
costs the run neither time nor data.
"""

from kafal_pipeline.tracking.tracker import NullTracker, Tracker

__all__ = ["NullTracker", "Tracker"]
