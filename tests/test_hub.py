"""Up to the Hub and down again, by an endpoint on this machine that knows the few routes that this takes."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest
import torch
import yaml
from toys import MICRO, L, masked_diffusion

from diffkit.data.tokenizer import load_tokenizer
from diffkit.hub import fetch, push_to_hub
from diffkit.model import DiffusionModel, build_model, load_model


class Endpoint(BaseHTTPRequestHandler):
    """Repositories as {name: {revision: {path: bytes}}}; a commit is named after its branch."""

    repositories: dict = {}
    asked: list = []

    def answer(self, body=b"", status=200, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repositories.setdefault(name, {})
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "private": asked.get("private")})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        name, what, revision = re.fullmatch(
            r"/api/models/(.+?)/(preupload|commit)/(\w+)", self.path.split("?")[0]
        ).groups()
        if what == "preupload":
            files = [file | {"uploadMode": "regular", "shouldIgnore": False} for file in json.loads(sent)["files"]]
            return self.answer({"files": files})
        files = [line["value"] for line in map(json.loads, sent.splitlines()) if line["key"] == "file"]
        held = {file["path"]: base64.b64decode(file["content"]) for file in files}
        self.repositories[name][revision] = held
        address = f"http://{self.headers['Host']}/{name}/commit/{revision}"
        return self.answer({"commitUrl": address, "commitOid": revision, "hookOutput": ""})

    def do_GET(self):
        self.asked.append(self.path)
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/api/models/(.+?)/(?:revision|tree)/(\w+)", path):
            held = self.repositories.get(found[1], {}).get(found[2])
            if held is None:
                return self.answer({"error": "no such revision"}, 404, X_Error_Code="RevisionNotFound")
            if "/tree/" in path:
                return self.answer(
                    [
                        {"type": "file", "path": file, "size": len(content), "oid": "0" * 40}
                        for file, content in held.items()
                    ]
                )
            siblings = [{"rfilename": file} for file in held]
            return self.answer({"id": found[1], "modelId": found[1], "sha": found[2], "siblings": siblings})
        if found := re.fullmatch(r"/(\w+/[\w-]+)/resolve/(\w+)/(.+)", path):
            content = self.repositories.get(found[1], {}).get(found[2], {}).get(found[3])
            if content is not None:
                etag = hashlib.sha256(content).hexdigest()
                return self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=found[2])
        return self.answer({"error": path}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The endpoint, in the place of huggingface.co, and a cache of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address, constants = f"http://127.0.0.1:{server.server_port}", huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    Endpoint.repositories, Endpoint.asked = {}, []
    yield Endpoint
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model():
    torch.manual_seed(3)
    return build_model(masked_diffusion(), "pico", max_length=L, language="micro").eval()


def test_a_model_goes_up_with_its_card_and_comes_down_again(hub, model):
    address = push_to_hub(model, MICRO.tokenizer, "me/tiny", license="mit", evaluation={"bound, nats": 2.5})
    held = hub.repositories["me/tiny"]["main"]
    assert address.startswith("http://127.0.0.1") and {"model.safetensors", "config.json", "tokenizer.json"} < {*held}
    _, metadata, text = held["README.md"].decode().split("---\n", 2)
    about = yaml.safe_load(metadata)
    assert about["library_name"] == "diffkit" and about["license"] == "mit" and "mdlm" in about["tags"]
    assert "| bound, nats | 2.5 |" in text and f"{sum(p.numel() for p in model.parameters()):,} parameters" in text
    folder = fetch("me/tiny")
    again, tokenizer, xt = load_model(folder), load_tokenizer(folder), MICRO.sample(3, torch.Generator().manual_seed(0))
    assert torch.equal(again(xt, 0.0), model(xt, 0.0)) and len(tokenizer) == len(MICRO.tokenizer)
    assert again.config.language == "micro"


def test_a_revision_is_another_model(hub, model):
    push_to_hub(model, MICRO.tokenizer, "me/tiny")
    with torch.no_grad():
        model.denoiser.norm.weight.mul_(2)
    push_to_hub(model, MICRO.tokenizer, "me/tiny", revision="later")
    found = [load_model(fetch("me/tiny", revision)).denoiser.norm.weight[0].item() for revision in (None, "later")]
    assert found == [1, 2]
    with pytest.raises(OSError, match="could not be fetched"):
        fetch("me/tiny", "never")
    with pytest.raises(OSError, match="could not be fetched"):
        fetch("me/other")


def test_from_pretrained_takes_a_name_and_a_revision(hub, model, capfd):
    push_to_hub(model, MICRO.tokenizer, "me/tiny", revision="later")
    again = DiffusionModel.from_pretrained("me/tiny", revision="later")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_no_pickle_is_asked_for(hub, model):
    push_to_hub(model, MICRO.tokenizer, "me/tiny")
    held = hub.repositories["me/tiny"]["main"]
    held["pytorch_model.bin"] = b"pickle"
    hub.repositories["me/tiny"]["old"] = {name: held[name] for name in ("config.json", "pytorch_model.bin")}
    assert sorted(path.suffix for path in fetch("me/tiny").iterdir()).count(".safetensors") == 1
    with pytest.raises(OSError):
        DiffusionModel.from_pretrained("me/tiny", revision="old")
    with pytest.raises(ValueError, match="no .safetensors"):
        load_model(fetch("me/tiny", "old"))
    assert not [path for path in hub.asked if ".bin" in path]
