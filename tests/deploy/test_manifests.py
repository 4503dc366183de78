"""The files for clusters: Kubernetes manifests, the cluster of `ray up`, the Slurm script, the bucket policy."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from tests.processes import HANG_S, until
from vouch_labels.schemas.campaign_file import load_campaign

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The fields of KubeRay's resources that the manifests use, with their types: no package carries its schemas. From the
# reference of KubeRay 1.5.1 to 1.7.1. Pod templates are checked by Kubernetes' own schema.
RAY_CLUSTER: dict[str, Any] = {
    "rayVersion": str,
    "authOptions": {"mode": ("token",)},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"idleTimeoutSeconds": int, "resources": dict, "securityContext": dict},
    "headGroupSpec": {"rayStartParams": "strings", "template": "pod"},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": "strings",
            "template": "pod",
        }
    ],
}
RAY_JOB: dict[str, Any] = {
    "entrypoint": str,
    "submissionMode": ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"),
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "rayClusterSpec": RAY_CLUSTER,
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def resources() -> list[dict[str, Any]]:
    """What `kubectl apply -k` applies, and the job."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    return [document for name in (*kustomization["resources"], "rayjob.yaml") for document in documents(name)]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in resources() if document["kind"] == kind]


def flow_job(**values: str) -> dict[str, Any]:
    """The job of a flow run, as Prefect's worker renders it from the work pool's template."""
    from prefect.utilities.templating import apply_values

    template = json.loads((KUBERNETES / "job-template.json").read_text())
    fields = template["variables"]["properties"]
    defaults = {name: field["default"] for name, field in fields.items() if "default" in field}
    job = apply_values(
        template["job_configuration"]["job_manifest"],
        defaults | {"name": "run", "labels": {}, "annotations": {}} | values,
    )
    # Prefect's worker wants these two in the pod, where Kubernetes does not know and ignores them.
    for name in ("parallelism", "completions"):
        assert job["spec"]["template"]["spec"].pop(name) == 1
    return job


def pods() -> list[dict[str, Any]]:
    """The specs of all pods that the manifests bring about."""
    specs = [document["spec"]["template"]["spec"] for document in of_kind("Deployment")]
    clusters = [document["spec"] for document in of_kind("RayCluster")]
    for cluster in clusters + [document["spec"]["rayClusterSpec"] for document in of_kind("RayJob")]:
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        specs += [group["template"]["spec"] for group in groups]
    return [*specs, flow_job()["spec"]["template"]["spec"]]


def check(value: Any, wanted: Any, where: str) -> None:
    """Compare a value with a description of its fields; every field must be described."""
    if wanted == "pod":
        validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"} | value["metadata"], "spec": value["spec"]}
        )
    elif wanted == "strings":
        assert all(isinstance(item, str) for item in value.values()), where
    elif isinstance(wanted, dict):
        assert value.keys() <= wanted.keys(), where
        for name, item in value.items():
            check(item, wanted[name], f"{where}.{name}")
    elif isinstance(wanted, list):
        for number, item in enumerate(value):
            check(item, wanted[0], f"{where}[{number}]")
    elif isinstance(wanted, tuple):
        assert value in wanted, where
    else:
        assert type(value) is wanted, where


def validate(document: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(document, "1.37", strict=True)


def test_manifests_fit_the_schemas_of_kubernetes_and_kuberay():
    for document in [*resources(), flow_job(cpu_request="4")]:
        if document["apiVersion"] != "ray.io/v1":
            validate(document)
        else:
            check(document["spec"], RAY_JOB if document["kind"] == "RayJob" else RAY_CLUSTER, document["kind"])
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert all((KUBERNETES / name).is_file() for name in kustomization["configMapGenerator"][0]["files"])


def test_a_wrong_field_is_noticed():
    [cluster] = of_kind("RayCluster")
    for change in ({"authOption": {}}, {"enableInTreeAutoscaling": "yes"}, {"authOptions": {"mode": "none"}}):
        with pytest.raises(AssertionError):
            check(cluster["spec"] | change, RAY_CLUSTER, "")
    container = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["volumeMount"] = container.pop("volumeMounts")
    with pytest.raises(Exception, match="volumeMount"):
        check(cluster["spec"], RAY_CLUSTER, "")


def test_no_pod_is_root_or_writes_to_its_image():
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        mounted = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
            assert {mount["name"] for mount in container["volumeMounts"]} == mounted
            assert container["resources"]["limits"]["memory"]


def test_only_what_needs_the_api_of_kubernetes_has_a_token_for_it():
    assert not any(account["automountServiceAccountToken"] for account in of_kind("ServiceAccount"))
    with_token = [pod["serviceAccountName"] for pod in pods() if pod.get("automountServiceAccountToken", True)]
    # Prefect's worker, which starts jobs, and the heads, where the autoscaler starts and ends pods.
    assert sorted(with_token) == ["prefect-worker", "vouch", "vouch"]


def test_roles_name_what_they_allow():
    for role in of_kind("Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"secrets", "pods/exec"} & set(rule["resources"])
    assert not of_kind("ClusterRole")


def test_secrets_are_named_and_never_written_down():
    assert not of_kind("Secret")
    for pod in pods():
        for entry in pod["containers"][0].get("env", []):
            if re.search("TOKEN|PASSWORD|AUTH_STRING$|CONNECTION_URL|SECRET_ACCESS_KEY", entry["name"]):
                assert entry["valueFrom"].keys() == {"secretKeyRef"}, entry


def test_the_cluster_grows_from_nothing_and_its_head_computes_nothing():
    [cluster] = of_kind("RayCluster")
    head, [group] = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (group["minReplicas"], group["replicas"]) == (0, 0)
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    campaign = load_campaign(KUBERNETES / "campaign.yaml")
    assert campaign.run.workers <= group["maxReplicas"]  # a number: it is the demand
    assert (float(limits["cpu"]), limits["nvidia.com/gpu"]) == (
        campaign.run.cpus_per_worker,
        campaign.run.gpus_per_worker,
    )


def test_one_image_on_all_nodes_and_the_same_cluster_in_the_job():
    [cluster], [job] = of_kind("RayCluster"), of_kind("RayJob")
    text = json.dumps(job["spec"]["rayClusterSpec"])
    assert json.loads(text.replace("registry.example.org/vouch:gpu-job-server", "vouch")) == cluster["spec"]
    assert "job-server" not in text.replace("registry.example.org/vouch:gpu-job-server", "")
    image = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["images"][0]
    assert flow_job()["spec"]["template"]["spec"]["containers"][0]["image"] == f"{image['newName']}:{image['newTag']}"
    assert cluster["spec"]["rayVersion"] == locked("ray")
    workers = [pod["containers"][0]["image"] for pod in pods() if pod.get("serviceAccountName") == "prefect-worker"]
    assert workers == [f"prefecthq/prefect:{version('prefect')}-python3.12-kubernetes"]


def test_the_job_joins_the_cluster_that_it_names_with_its_token():
    [container] = flow_job(ray_cluster="other")["spec"]["template"]["spec"]["containers"]
    assert "ray start --address=other-head-svc:6379 --num-cpus=0" in container["args"][0]
    [token] = [entry["valueFrom"] for entry in container["env"] if entry["name"] == "RAY_AUTH_TOKEN"]
    assert token == {"secretKeyRef": {"name": "other", "key": "auth_token"}}


def locked(name: str, file: str = "../requirements.lock") -> str:
    [found] = re.findall(rf"^{name}==(\S+)", (DEPLOY / file).read_text(), re.MULTILINE)
    return found


def test_the_job_server_is_that_of_the_locked_ray_and_changes_no_package():
    text = (DEPLOY / "ray-default.lock").read_text()
    assert f"ray[default]=={locked('ray')}'" in text
    names = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    assert {"aiohttp", "grpcio", "opencensus"} <= names
    assert not names & set(re.findall(r"^([a-z0-9-]+)==", (DEPLOY / "../requirements.lock").read_text(), re.MULTILINE))
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:])


@pytest.fixture
def guarded_bucket(credentials, make_images, tmp_path, monkeypatch) -> Iterator[str]:
    """Address of a made-up S3 that keeps to s3-policy.json; its bucket `photos` has images that one may only read."""
    keys = make_images(tmp_path / "images", 12)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    free = 4 + len(keys)  # requests that nobody checks: those below
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(free)}
    server = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: accepts(port))
        endpoint = f"http://127.0.0.1:{port}"
        s3 = boto3.client("s3", endpoint_url=endpoint)
        s3.create_bucket(Bucket="photos")
        for key in keys:
            s3.put_object(Bucket="photos", Key=f"images/{key}", Body=(tmp_path / "images" / key).read_bytes())
        iam = boto3.client("iam", endpoint_url=endpoint)
        iam.create_user(UserName="vouch")
        policy = (KUBERNETES / "s3-policy.json").read_text().replace("BUCKET", "photos")
        iam.put_user_policy(UserName="vouch", PolicyName="vouch", PolicyDocument=policy)
        key = iam.create_access_key(UserName="vouch")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield endpoint
    finally:
        server.terminate()
        server.wait(HANG_S)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_bucket_policy_allows_a_campaign_and_no_more(guarded_bucket, make_campaign, label):
    s3 = {"endpoint_url": guarded_bucket, "path_style": True}
    places = {kind: {"uri": f"s3://photos/{folder}", "s3": s3} for kind, folder in
              (("source", "images"), ("workspace", "vouch"))}  # fmt: skip
    summary, _ = label(make_campaign(**places))
    assert (summary.done, summary.failed) == (12, 0)
    client = boto3.Session().client("s3", endpoint_url=guarded_bucket)
    [export] = client.list_objects_v2(Bucket="photos", Prefix="vouch/exports/coco/annotations.json")["Contents"]
    assert export["Size"] > 0
    client.abort_multipart_upload(
        Bucket="photos",
        Key="vouch/large",
        UploadId=client.create_multipart_upload(Bucket="photos", Key="vouch/large")["UploadId"],
    )
    for refused in (
        lambda: client.put_object(Bucket="photos", Key="images/000.png", Body=b""),
        lambda: client.delete_object(Bucket="photos", Key="images/000.png"),
        lambda: client.get_bucket_policy(Bucket="photos"),
        lambda: client.delete_bucket(Bucket="photos"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()


@pytest.mark.ray
def test_ray_up_takes_its_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text()))
    validate_config(config)
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(config | {"idle_timeout": 5})
    head, workers = (config["available_node_types"][name] for name in ("head", "gpu"))
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert workers["min_workers"] == 0
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    for command in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in command


# Slurm's two commands that the script uses, on this machine alone; each node is this one.
FAKE_SLURM = {
    "srun": 'echo "$@" >>"$STEPS"; while [[ $1 == --* ]]; do [[ $1 != --nodelist ]] || shift; shift; done; exec "$@"',
    "scontrol": "echo one; echo two",
    "hostname": "echo 127.0.0.1",
    "python": f'exec {sys.executable} "$@"',
    "ray": f'exec {sys.executable} -c "$RAY" "$@"',
    "vouch": f'exec {sys.executable} -m vouch_labels.flows.cli "$@"',
}
# `ray` itself, which gives a node 30 seconds to start; here they last for half an hour, as on a busy machine they may.
RAY = """
import time, types
import ray._private.node as node
from ray.scripts.scripts import main
node.time = types.SimpleNamespace(**vars(time) | {"monotonic": lambda: time.monotonic() / 60})
main()
"""
# A network of its own, so that Ray listens on loopback alone; and processes of its own, so that none is left behind.
APART = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
UP = (
    "import fcntl, socket, struct; "
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 1))"  # SIOCSIFFLAGS, IFF_UP
)


@pytest.mark.slow
@pytest.mark.ray
def test_the_slurm_script_starts_both_nodes_labels_and_leaves_no_process(make_images, write_campaign, tmp_path):
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces: unshare (util-linux) is missing or not allowed")
    keys = make_images(tmp_path / "images", 24)
    run = {"runner": "ray", "workers": 2, "cpus_per_worker": 1, "ray": {"address": "auto"}, "shard_size": 2}
    campaign = write_campaign(run=run)
    (tmp_path / "bin").mkdir()
    for name, body in FAKE_SLURM.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    # At last what still runs in there: the shell itself, and ps.
    script = f'{sys.executable} -c "{UP}" && {DEPLOY}/slurm.sh {campaign}; echo "ended $?"; ps -eo comm='
    with tempfile.TemporaryDirectory(prefix="vouch-slurm-") as short:  # paths of Ray's sockets must be short
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VOUCH": str(tmp_path / "bin" / "vouch"),
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "[one-two]", "SLURM_CPUS_PER_TASK": "1", "SLURM_TMPDIR": short,
            "RAY": RAY, "STEPS": str(tmp_path / "steps"),
            "PREFECT_HOME": str(tmp_path / "prefect"), "VOUCH_LOG": str(tmp_path / "log"),
        }  # fmt: skip
        done = subprocess.run(
            [*APART, "bash", "-c", script], cwd=DEPLOY.parent, env=environment, capture_output=True, text=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
    said, ended, left = done.stdout.partition("ended 0\n")
    assert ended, said + done.stderr
    assert {*left.split()} <= {"bash", "ps"}, left
    steps = (tmp_path / "steps").read_text()
    assert re.search(r"--nodelist one \S+/ray start --block .*--head ", steps)
    assert re.search(r"--nodelist two \S+/ray start --block .*--address=127.0.0.1:20007", steps)
    exported = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    assert len(exported["images"]) == len(keys)
