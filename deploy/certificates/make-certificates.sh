#!/usr/bin/env bash
# Makes a private authority and one certificate per end, for mutual TLS between scout-edge and
# scout-cloud. For tests and small sites; a company uses its own authority and the same file names.
#
#   make-certificates.sh FOLDER [--cloud NAME[,NAME…]] [--edge NAME]… [--days N]
#
# FOLDER gets authority.pem, authority-key.pem (keep it off the hosts), cloud.pem, cloud-key.pem and
# for each edge NAME.pem, NAME-key.pem. NAMEs of the cloud are the host names or addresses by which
# edge agents reach it. An existing authority is kept, so that a later run can add an edge.
set -euo pipefail

fail() { echo "make-certificates: $*" >&2; exit 2; }

command -v openssl >/dev/null || fail "openssl is not installed"
if [[ ${1:--} == -* ]]; then
  fail "name a folder first: make-certificates.sh FOLDER [--cloud NAMES]"
fi
folder=$1
shift
cloud_names="localhost,127.0.0.1,::1"
edges=()
days=825
while (($#)); do
  (($# > 1)) || fail "$1 needs a value"
  case $1 in
    --cloud) cloud_names=$2 ;;
    --edge) edges+=("$2") ;;
    --days) days=$2 ;;
    *) fail "unknown option $1" ;;
  esac
  shift 2
done
[[ $days =~ ^[1-9][0-9]*$ ]] || fail "--days takes a number, not '$days'"
((${#edges[@]})) || edges=(edge)
for name in "${edges[@]}"; do
  [[ $name =~ ^[A-Za-z0-9_.-]{1,64}$ && $name != cloud && $name != authority ]] ||
    fail "--edge takes 1 to 64 characters of [A-Za-z0-9_.-], and neither cloud nor authority: '$name'"
done

umask 077
mkdir -p "$folder"
cd "$folder"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [[ ! -f authority.pem || ! -f authority-key.pem ]]; then
  new_key authority-key.pem
  openssl req -x509 -new -key authority-key.pem -sha256 -days "$days" -out authority.pem \
    -subj "/O=Scout/CN=Scout test authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

# subject_names NAME,NAME… → DNS:NAME,IP:NAME…
subject_names() {
  local name joined=""
  for name in ${1//,/ }; do
    if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then joined+=",IP:$name"; else joined+=",DNS:$name"; fi
  done
  echo "${joined#,}"
}

# issue FILE COMMON_NAME ALTERNATIVE_NAMES USAGE
issue() {
  new_key "$1-key.pem"
  openssl req -new -key "$1-key.pem" -sha256 -subj "/O=Scout/CN=$2" |
    openssl x509 -req -sha256 -days "$days" -out "$1.pem" \
      -CA authority.pem -CAkey authority-key.pem -set_serial "0x$(openssl rand -hex 16)" \
      -extfile <(
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=$4"
        echo "subjectAltName=$3"
        echo "subjectKeyIdentifier=hash"
        echo "authorityKeyIdentifier=keyid"
      ) 2>/dev/null
  openssl verify -CAfile authority.pem "$1.pem" >/dev/null || fail "$1.pem does not verify"
}

if [[ ! -f cloud.pem ]]; then
  issue cloud "${cloud_names%%,*}" "$(subject_names "$cloud_names")" serverAuth,clientAuth
fi
for name in "${edges[@]}"; do
  # An edge agent also serves its host's applications.
  [[ -f $name.pem ]] || issue "$name" "$name" "DNS:$name,DNS:localhost,IP:127.0.0.1" serverAuth,clientAuth
done
chmod 644 authority.pem cloud.pem
for name in "${edges[@]}"; do chmod 644 "$name.pem"; done
echo "Certificates are in $PWD: authority.pem, cloud.pem, $(printf '%s.pem ' "${edges[@]}")and their keys."
