"""Prediction: images, videos and streams in, boxes with names out."""

from yolo.apps.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
