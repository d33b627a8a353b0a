# What tests/chart/all.yaml asks for. Input: the objects; output: the names of what is not so.
def kind(k): map(select(.kind == k)) | .[0];
def env(name): .env[] | select(.name == name);
kind("DaemonSet") as $set | $set.spec.template as $pod | $pod.spec.containers[0] as $agent
| {
    namespace: (all(.[]; (.kind | startswith("Cluster") or . == "FlowSchema" or . == "PriorityLevelConfiguration")
        or .metadata.namespace == "networks")),
    names: ($set.metadata.name == "net" and kind("ClusterRole").metadata.name == "net"),
    labels: (all(.[]; .metadata.labels | .team == "platform" and .["app.kubernetes.io/instance"] == "one"
        and .["app.kubernetes.io/managed-by"] == "Helm" and .["helm.sh/chart"] != null)),
    selector: ($set.spec.selector.matchLabels == {"app.kubernetes.io/name": "ferrule", "app.kubernetes.io/instance": "one"}),
    image: ($agent.image | startswith("registry.example/ferrule@sha256:0123")),
    pull: ($agent.imagePullPolicy == "Always" and $pod.spec.imagePullSecrets == [{name: "pull"}]),
    settings: (kind("ConfigMap") | .metadata.name == "net" and .data
        == {FERRULE_ROUTING: "vxlan", FERRULE_VXLAN_ID: "10000000", FERRULE_MASQUERADE: "false"}),
    settingsRead: ($agent.envFrom == [{configMapRef: {name: "net", optional: true}}, {secretRef: {name: "more", optional: true}}]),
    settingsRoll: ($pod.metadata.annotations["checksum/settings"] | length == 64),
    arguments: ($agent.args == ["--log-level", "debug"]),
    variables: ($agent | env("FERRULE_NODE_NAME").valueFrom.fieldRef.fieldPath == "spec.nodeName"
        and env("FERRULE_DROP_INS").value == "/host/run" and env("KUBERNETES_SERVICE_HOST").value == "localhost"),
    volumes: ($pod.spec.volumes | any(.name == "extra") and any(.name == "run")
        and any(.hostPath.path == "/bin-of-the-node") and any(.hostPath.path == "/conf-of-the-node")),
    mounts: ($agent.volumeMounts | any(.mountPath == "/extra") and any(.mountPath == "/host/run")),
    account: (kind("ServiceAccount").metadata | .name == "agent" and .annotations == {a: "b"}),
    accountUsed: ($pod.spec.serviceAccountName == "agent"
        and kind("ClusterRoleBinding").subjects == [{kind: "ServiceAccount", name: "agent", namespace: "networks"}]
        and kind("ClusterRoleBinding").roleRef.name == "net"),
    flowControl: (kind("FlowSchema") | .metadata.name == "net" and .spec.priorityLevelConfiguration.name == "net"
        and .spec.rules[0].subjects == [{kind: "ServiceAccount", serviceAccount: {name: "agent", namespace: "networks"}}]),
    flowControlLevel: (kind("PriorityLevelConfiguration") | .metadata.name == "net" and .spec.limited.nominalConcurrencyShares == 10),
    resources: ($agent.resources == {requests: {cpu: "10m", memory: "32Mi"}, limits: {memory: "128Mi"}}),
    nodes: ($pod.spec | has("priorityClassName") == false and has("tolerations") == false
        and .nodeSelector.network == "ferrule" and .affinity.nodeAffinity != null),
    annotations: ($pod.metadata | .annotations.c == "d" and .labels.e == "f" and .labels.team == "platform"),
    strategy: ($set.spec.updateStrategy == {type: "OnDelete"}),
    monitor: (kind("PodMonitor") | .metadata.labels.release == "prometheus"
        and .spec.podMetricsEndpoints[0].interval == "15s" and .spec.selector == $set.spec.selector),
    rules: (kind("PrometheusRule") | .metadata.labels.release == "prometheus" and (.spec.groups[0].rules | length > 3)),
} | to_entries[] | select(.value != true) | .key
