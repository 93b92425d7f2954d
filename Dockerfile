# The service over an index that scripts/index.py has made. Not built yet: no container engine was at hand.
#   docker build -t vdr-serve . && docker run -p 127.0.0.1:8000:8000 -v ./index:/index:ro vdr-serve
# An index with page vectors names its model: a folder has to be mounted at the same path, a hub id is downloaded.
FROM python:3.12-slim
COPY requirements.txt scripts/serve.py ./
RUN pip install --no-cache-dir -c requirements.txt "sentence-transformers[image]" bm25s fastapi numpy uvicorn
USER nobody
EXPOSE 8000
CMD ["python", "serve.py", "--index", "/index", "--host", "0.0.0.0"]
