# Training, validation and the demo in one image.
#
#   docker build -t yolo .                                     # for CPUs
#   docker build -t yolo --build-arg DEVICE=cuda .             # for NVIDIA GPUs
#
#   docker run --rm -v "$PWD/data:/app/data" -v "$PWD/logs:/app/logs" yolo main.py
#   docker run --rm --gpus all --shm-size 8g -v ... yolo main.py --config configs/yolov3/darknet53_coco.yaml --gpu 0
#   docker run --rm -v "$PWD/data:/app/data" -v "$PWD/logs:/app/logs" yolo validation.py
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD/logs:/app/logs" yolo
#
# Without a command it serves the demo of the newest run at http://127.0.0.1:7860. The container's
# user has the id 1000: data and logs must be writable for it (or add --user "$(id -u)").
FROM python:3.12-slim

# cpu, or cuda: PyTorch brings the CUDA libraries along, the host only its driver.
ARG DEVICE=cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/home/yolo

RUN useradd --uid 1000 --home-dir /home/yolo --create-home yolo \
    && mkdir -p /app/data /app/logs /app/weights \
    && chown -R yolo:yolo /app \
    && chmod 1777 /home/yolo
WORKDIR /app

# Dependencies first: they change less often than the code, so Docker keeps this layer.
COPY requirements.txt ./
# The range of requirements.txt, where hadolint wants one version.
# hadolint ignore=DL3013
RUN case "$DEVICE" in \
        cpu) python -m pip install "torch>=2.10" torchvision --index-url "$TORCH_CPU_INDEX" ;; \
        cuda) ;; \
        *) echo "DEVICE=$DEVICE: must be cpu or cuda" >&2; exit 2 ;; \
    esac \
    && python -m pip install -r requirements.txt

COPY --chown=yolo:yolo . .
RUN python -m pip install --editable ".[export,demo,explain]"

USER 1000
EXPOSE 7860
VOLUME ["/app/data", "/app/logs"]
ENTRYPOINT ["python"]
CMD ["scripts/demo.py", "--host", "0.0.0.0", "--port", "7860"]
