#!/bin/sh
# Sees that system packages are there, installs what is missing where it may, else says the one
# command to type. Usage: arm_tools.sh arm | fuzz
set -eu
need=""
want() { command -v "$1" >/dev/null 2>&1 || need="$need $2"; }
case "${1:-arm}" in
arm)
    want arm-none-eabi-gcc gcc-arm-none-eabi
    want qemu-system-arm qemu-system-arm
    want cppcheck cppcheck
    if command -v arm-none-eabi-gcc >/dev/null 2>&1; then
        [ "$(arm-none-eabi-gcc -print-file-name=nano.specs)" != nano.specs ] ||
            need="$need libnewlib-arm-none-eabi"
    else
        need="$need libnewlib-arm-none-eabi"
    fi
    ;;
fuzz)
    # libFuzzer is a package of its own beside clang
    command -v clang >/dev/null 2>&1 && [ -e "$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a)" ] ||
        need="clang libclang-rt-dev"
    ;;
esac
[ -n "$need" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "firmware tools are missing. Type this once, then call make again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$need" >&2
    exit 1
fi
echo "installing system packages:$need"
$as_root apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $need >/dev/null
