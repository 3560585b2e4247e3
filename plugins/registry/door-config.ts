/**
 * What sshd and the sessions of the door are told: its configuration, the keys, and the one program that a session may run. Every option that opens something is set,
 * also where it is sshd's own default: that of another version, or of a distribution, may be another one.
 */
import { Fault } from "../../core/errors.js";
import { vehicleMark } from "./door-processes.js";
import { legacyKeyOf } from "./legacy-key.js";
import { cutName, underWayName } from "./slot-dir.js";
import { publicKeyOf } from "./wire.js";

/** What a session ends with where no slot is open for its vehicle. */
const noSlotCode = 77;
/** What `enter` ends with where it was asked for nobody: the account's shell can run it. */
export const readyCode = 78;

export interface Programs {
  readonly sshd: string;
  readonly rrsync: string;
  readonly rsync: string;
  /** rsync 3.5 or newer: it can be confined to a directory, also where it looks for rules. */
  readonly confines: boolean;
}

/** The door's directory stands in files that sshd, a shell and /proc read: it has none of the signs that mean something there. */
export function isPlainPath(path: string): boolean {
  // eslint-disable-next-line no-control-regex
  return path.startsWith("/") && !/[\u0000-\u001f\u007f"'\\%]/.test(path);
}

export function isVehicleId(text: string): boolean {
  return /^[a-z0-9][a-z0-9-]{0,62}$/.test(text);
}

export type Key = NonNullable<ReturnType<typeof publicKeyOf>>;

/** Throws "config" for anything that is no ed25519 key. What comes after the key is not looked at. */
export function keyOf(text: string): Key {
  const key = publicKeyOf(text);
  if (key === undefined)
    throw new Fault("config", 'the key is no ed25519 key: it is one line, "ssh-ed25519 AAAA…", of a file that ends in .pub');
  return key;
}

/** The same of a legacy vehicle, whose key may be RSA. */
export function anyKeyOf(text: string): Pick<Key, "line" | "fingerprint"> {
  const key = legacyKeyOf(text);
  if (key === undefined)
    throw new Fault(
      "config",
      "the key is no RSA key of at least 2048 bits, and no ed25519 one: it is one line of a file that ends in .pub",
    );
  return key;
}

/** A key may log in to one thing only. */
export function keyLine(dir: string, vehicle: string, key: Pick<Key, "line">, legacy: boolean): string {
  return `restrict,command="exec /bin/sh '${dir}/enter${legacy ? "-legacy" : ""}' '${vehicle}'" ${key.line} ${vehicle}\n`;
}

const intoSlot = (dir: string) => `[ "$#" -eq 1 ] || exit ${readyCode}
refuse() {
  echo "filesync: $2" >&2
  exit "$1"
}
slot=
IFS= read -r slot 2>/dev/null <'${dir}/open/'"$1" || slot=
[ -n "$slot" ] || refuse ${noSlotCode} 'no slot is open; ask for one'
[ -d "$slot" ] || refuse ${noSlotCode} 'the slot has gone; ask for one'
LC_ALL=C`;

/**
 * The program of every session. It looks at the slot anew each time; a slot's file without a line end is half of one. rrsync's lock keeps two
 * sessions out of one directory (no `-no-lock`), and links that come in lead nowhere (`-munge`).
 *
 * rsync reads rules of a client that wants empty directories left out (-m), and such a rule may name a file, of which the complaints tell the lines: before rsync 3.5 any
 * file of this account. With --preallocate a file holds as much of the disk as the vehicle says it will have, of which its size tells nothing, and keeps that when it is cut. The options end at the
 * first " . "; that rrsync sees the same words there, only plain text without backslashes may be among them, and that "." is no option's value.
 */
export function enterScript(dir: string, { rrsync }: Programs): string {
  return `#!/bin/sh
# Written by FileSync: what a vehicle's key may run. Changes are lost at the next start.
${intoSlot(dir)}
options=\${SSH_ORIGINAL_COMMAND%% . *}
case $options in
  *[!\\ -~]* | *\\\\*) refuse 2 'these options are not taken here' ;;
esac
set -f
word=
for word in $options; do
  case $word in
    --preallocate) refuse 2 'the option --preallocate is not taken here' ;;
    --*) ;;
    -*)
      # What follows an "e" is what the client can do.
      case \${word%%e*} in
        *m*) refuse 2 'the option -m (--prune-empty-dirs) is not taken here' ;;
      esac
      ;;
  esac
done
# The last one.
case $word in
  *=*) ;;
  --*-dir | --*-dest | --*-choice | --*map | --*-level | --*-threads | --max-* | --min-* | --log-* | --block-size | --bwlimit | --checksum-seed | --debug | --files-from | --iconv | --info | --modify-window | --only-write-batch | --skip-compress | --stderr | --suffix | --timeout)
    refuse 2 "the value . of the option $word is not taken here" ;;
esac
unset LC_ALL
export ${vehicleMark}="$1" PYTHONNOUSERSITE=1
exec '${rrsync}' -wo -no-del -munge "$slot"
`;
}

/**
 * The program of every session of a legacy vehicle. Its client asks for nothing but `rsync -ahHzv FILE USER@HOST:~`, so nothing else is taken; and of that only the letters, which tell how the two
 * rsyncs speak. All other words are ours: where it writes (whatever destination is named), what is kept when the line breaks, and that a client's wish for owners, devices and links gets it none.
 * (A `--no-D` here would not do: the client's rsync would go on telling of devices, and ours would not read it.) rrsync is not in between: that of rsync 3.5 gives rsync its partial directory by a
 * name with which it cannot keep anything. What that has and a fixed command has not is its lock, which is taken here: the next session waits until the one before has kept what it had.
 *
 * The client puts its file away when this ends with 0. So by then the name is on the disk, too.
 */
export function legacyScript(dir: string, { rsync, confines }: Programs): string {
  return `#!/bin/sh
# Written by FileSync: what the key of a vehicle with APSync's client may run. Changes are lost at the next start.
${intoSlot(dir)}
no='only what APSync asks of rsync is taken here'
asked=\${SSH_ORIGINAL_COMMAND-}
words=\${asked#rsync --server -}
words=\${words%% *}
plain=\${words%%e*}
able=\${words#"$plain"e}
case $asked in
  "rsync --server -$words . "?*) ;;
  *) refuse 2 "$no" ;;
esac
case $words in
  [!e]*e*) ;;
  *) refuse 2 "$no" ;;
esac
case $plain in
  *[!vlHogDtprz]*) refuse 2 "$no" ;;
esac
case $able in
  '' | *[!0-9A-Za-z.]* | *.*.* | [!0-9.]*) refuse 2 "$no" ;;
esac
unset LC_ALL
cd "$slot" || refuse ${noSlotCode} 'the slot has gone; ask for one'
exec 9<.
flock -n 9 || refuse 75 'another session of this vehicle has not ended yet'
export ${vehicleMark}="$1"
if [ ! -d ${underWayName} ] || [ -L ${underWayName} ]; then
  rm -f ${underWayName}
  mkdir ${underWayName} || refuse 1 'there is something in the way'
fi
'${rsync}' --server "-$words" --temp-dir=${underWayName} --partial-dir=${cutName} --fsync --munge-links --no-super${confines ? ` --drop-D --confine-root="$(pwd -P)"` : ""} -- . .
code=$?
sync . || exit 1
exit "$code"
`;
}

export interface Account {
  readonly name: string;
  readonly isRoot: boolean;
}

/** `legacy`: RSA keys, never with SHA-1. `strict`: sshd looks at who may write in the directories above its keys. */
export function sshdConfig(dir: string, account: Account, strict: boolean, legacy: boolean): string {
  const lines: Readonly<Record<string, string>> = {
    HostKey: `"${dir}/host_key"`,
    AuthorizedKeysFile: `"${dir}/authorized_keys"`,
    // The commands for keys and principals are not set: there are none by default, and where "none" is written sshd complains of their user at each login.
    AuthorizedPrincipalsFile: "none",
    TrustedUserCAKeys: "none",
    RevokedKeys: "none",
    StrictModes: strict ? "yes" : "no",
    PubkeyAuthentication: "yes",
    AuthenticationMethods: "publickey",
    PasswordAuthentication: "no",
    PermitEmptyPasswords: "no",
    KbdInteractiveAuthentication: "no",
    HostbasedAuthentication: "no",
    IgnoreRhosts: "yes",
    GSSAPIAuthentication: "no",
    KerberosAuthentication: "no",
    UsePAM: "no",
    PermitRootLogin: account.isRoot ? "forced-commands-only" : "no",
    AllowUsers: account.name,
    DisableForwarding: "yes",
    AllowTcpForwarding: "no",
    AllowStreamLocalForwarding: "no",
    AllowAgentForwarding: "no",
    X11Forwarding: "no",
    PermitTunnel: "no",
    GatewayPorts: "no",
    PermitOpen: "none",
    PermitListen: "none",
    PermitTTY: "no",
    PermitUserEnvironment: "no",
    PermitUserRC: "no",
    ChrootDirectory: "none",
    ForceCommand: "none",
    MaxAuthTries: "3",
    MaxSessions: "1",
    LoginGraceTime: "20",
    ClientAliveInterval: "15",
    ClientAliveCountMax: "4",
    TCPKeepAlive: "yes",
    UseDNS: "no",
    PrintMotd: "no",
    PrintLastLog: "no",
    Banner: "none",
    VersionAddendum: "none",
    ExposeAuthInfo: "no",
    PidFile: "none",
    Compression: "no",
    PubkeyAcceptedAlgorithms: legacy ? "ssh-ed25519,rsa-sha2-512,rsa-sha2-256" : "ssh-ed25519",
    HostKeyAlgorithms: "ssh-ed25519",
    KexAlgorithms: "sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org",
    Ciphers: "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes128-ctr",
    MACs: "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com",
    // It tells which key came in.
    LogLevel: "VERBOSE",
  };
  const text = Object.entries(lines).map(([name, value]) => `${name} ${value}\n`);
  return `# Written by FileSync for the vehicles that come in. Changes are lost at the next start.\n${text.join("")}`;
}
