# The course in a container, with its token on, reached from this machine only:
#   docker build --tag diffkit .
#   docker run --rm --init --publish 127.0.0.1:8888:8888 diffkit
FROM python:3.13-slim-trixie

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home reader \
    && install --directory --owner reader /home/reader/diffkit
USER reader
WORKDIR /home/reader/diffkit

# The packages first: they change seldom. --build-arg PIP_EXTRA_INDEX_URL=(PyTorch's CPU index) spares several GB of GPU libraries.
ARG PIP_EXTRA_INDEX_URL=
COPY --chown=reader requirements.lock ./
RUN python3 -m venv .venv && .venv/bin/python -m pip install --no-cache-dir --requirement requirements.lock
COPY --chown=reader . .
RUN make .venv/.ready

EXPOSE 8888
CMD ["make", "lab", "LAB_IP=0.0.0.0", "LAB_ARGS=--port 8888 --no-browser"]
