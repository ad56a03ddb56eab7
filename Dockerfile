# zerocon in a container.
#
#   docker build -t zerocon .                     CUDA: about 6 GB of libraries
#   docker build -t zerocon --build-arg TORCH=cpu .  CPU only: about 1.5 GB
#   docker run --gpus all -v "$PWD":/work zerocon run backbone=sd15 …
#
# Downloads, outputs and the cache lie in the mounted folder. The CUDA libraries come with torch, so
# that the base image needs none; the host needs NVIDIA's driver and container toolkit.
FROM python:3.12-slim

ARG TORCH=cuda
ENV PYTHONUNBUFFERED=1 \
    UV_SYSTEM_PYTHON=1 \
    UV_LINK_MODE=copy \
    ZEROCON_CACHE=/work/.cache

RUN pip install --no-cache-dir uv
WORKDIR /opt/zerocon
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY zerocon zerocon
COPY conf conf
COPY experiments experiments
# The default index has the CUDA builds.
RUN if [ "$TORCH" = cuda ]; then backend=""; else backend="--torch-backend $TORCH"; fi; \
    uv pip install --no-cache $backend --constraints constraints.txt .

WORKDIR /work
ENTRYPOINT ["zerocon"]
CMD ["--help"]
