# The pipeline's processes, and the Redshift stand-in beside them.
FROM python:3.11-slim-bookworm
WORKDIR /app
COPY requirements.txt requirements-dev.txt requirements-lock.txt ./
RUN pip install --no-cache-dir -r requirements-dev.txt -c requirements-lock.txt
COPY . .
# The stand-in's certificates and log, shared with the processes that trust it.
RUN pip install --no-cache-dir --no-deps -e . \
 && useradd --create-home pipeline \
 && install -d -o pipeline /state
USER pipeline
ENV PYTHONUNBUFFERED=1
