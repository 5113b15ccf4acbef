"""Checks manifests by the schemas of Kubernetes; run where kubernetes-validate is installed."""

import json
import sys

import kubernetes_validate

for document in json.load(sys.stdin):
    try:
        kubernetes_validate.validate(document, "1.36", strict=True)
    except kubernetes_validate.ValidationError as error:
        sys.exit(f"{document['kind']}: {error.message}")
