"""Prediction: images, videos and streams in, boxes with names out."""

from yolo.apps.predict.prediction import Prediction
from yolo.apps.predict.predictor import Predictor

__all__ = ["Prediction", "Predictor"]
