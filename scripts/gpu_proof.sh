#!/usr/bin/env bash
# Prove this project on a GPU, in one command:  scripts/gpu_proof.sh [SECONDS]  (560)
#
# The parts run in the order of their worth, each with a time limit of its own; one that fails or
# takes too long does not keep the next from running. What each prints is in $OUT/NAME.txt (OUT:
# logs/gpu_proof), and $OUT/log.txt has a line for each. Exit code 1 if any part failed.
#
# Where the folder .whl lies beside main.py, what PyTorch's own environment lacks is installed from
# it into .site, without a network; real images are taken from .gpu-data (coco-mini, bccd), or from
# where YOLO_TEST_DATA says. PYTHON names the Python (python3), PARTS some of the parts ("ranks runs").
# YOLO_GPU_TESTS_ON=cpu tries the script itself where no GPU is, at tiny sizes.
set -uo pipefail
{ # all of it is read before it begins, so that an edit does not change a run under way
cd "$(dirname "$0")/.." || exit 1
total=${1:-560}
out=${OUT:-logs/gpu_proof}
python=${PYTHON:-python3}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
log=$out/log.txt
slower=1 # than a GPU, for the limits
[ "${YOLO_GPU_TESTS_ON:-}" = cpu ] && slower=6
: >"$log"
failed=0

say() { printf '%s\n' "$*" | tee -a "$log"; }

part() { # NAME LIMIT_SECONDS COMMAND...
    local name=$1 limit=$2 left=$((total - SECONDS)) start=$SECONDS code=0 how
    [[ -z "${PARTS:-}" || " $PARTS " == *" $name "* ]] || return 0
    shift 2
    limit=$((limit * slower))
    ((limit < left)) || limit=$left
    if ((limit < 5)); then
        say "$(printf '%-18s %4s    left out: no time' "$name" -)"
        return
    fi
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.txt" 2>&1 || code=$?
    case $code in
        0) how=passed ;;
        124 | 137) how="timed out after $limit s" ;;
        *) how="FAILED with $code" ;;
    esac
    ((code == 0)) || failed=1
    local last
    last=$(grep -v '^ *$' "$out/$name.txt" | tail -n 1 | cut -c -100)
    say "$(printf '%-18s %4d s  %s: %s' "$name" $((SECONDS - start)) "$how" "$last")"
}

tests() { # NAME LIMIT_SECONDS FILE [-k EXPRESSION]
    part "$1" "$2" "$python" -m pytest -q -p no:cacheprovider -m gpu --durations=5 \
        "tests/gpu/test_${3}.py" "${@:4}"
}

if [ -d .whl ]; then
    part install 90 "$python" -m pip install -q --no-index --no-deps --no-compile \
        --no-cache-dir --upgrade --target .site .whl/*.whl
fi
[ -d .site ] && export PYTHONPATH="$PWD/.site${PYTHONPATH:+:$PYTHONPATH}"
[ -d .gpu-data ] && export YOLO_TEST_DATA="$PWD/.gpu-data"
export PYTHONUNBUFFERED=1
data=${YOLO_TEST_DATA:-}

gpu=0 only='auto or fp16' waits=waits bench=() short=()
if [ "${YOLO_GPU_TESTS_ON:-}" = cpu ]; then
    gpu=cpu only='yolov3 and auto' waits='waits and not fp16' bench=(--tiny --rounds 2)
    short=(training.steps=2 data.image_size=64 data.val.image_sets='[val]' evaluation.every=2)
fi

part versions 60 "$python" -c '
import importlib, subprocess, sys, torch, torchvision
print(sys.version, torch.__version__, torchvision.__version__, torch.version.cuda, sep="\n")
names = "albumentations attrs cv2 defusedxml filelock hotcoco jinja2 jsonschema matplotlib numpy PIL"
for name in [*names.split(), "pycocotools", "pydantic", "pytest", "tensorboard", "tqdm", "yaml"]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print("MISSING:", error)
if torch.cuda.is_available():
    print(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
    print("cuDNN", torch.backends.cudnn.version(), "NCCL", torch.cuda.nccl.version())
    print(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0))
else:
    print("no CUDA device")
'
tests first-steps 100 first_steps -k "$only"
tests compile 90 compile
tests ranks 60 ranks
tests waits 30 waits -k "$waits"
tests memory 45 memory
tests runs 75 runs
tests fp32 60 first_steps -k "not ($only)"
part benchmark 200 "$python" scripts/benchmark.py gpu --gpu "$gpu" "${bench[@]}" \
    --output "$out/benchmark.md" --kernels "$out/kernels.txt"

for seed in 0 1 2; do
    if [ ! -d "$data/bccd" ]; then
        say "blood cells: left out, for there is no bccd in ${data:-YOLO_TEST_DATA}"
        break
    fi
    left=$((total - SECONDS - 20)) # the rest is for scoring it
    ((left > 20)) || break
    sets=() run=bccd-seed$seed-$(date +%H%M%S) # a name that no run before has
    for split in train val test; do sets+=("data.$split.root=$data/bccd"); done
    part "bccd-seed$seed" "$left" "$python" main.py --config configs/yolov3/bccd.yaml --gpu "$gpu" \
        --name "$run" "logging.directory=$out" "seed=$seed" "${sets[@]}" "${short[@]}"
    part "bccd-test$seed" 60 "$python" validation.py "$out/$run" --gpu "$gpu" \
        --split test --json "$out/$run.json"
done
say "all in $SECONDS of $total s; what each part printed is in $out"
exit "$failed"
}
