import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import { decodeRecord, encodeRecord, readAll } from './account-records.js';

export const openpgpKeyRecord = z.object({
  fingerprint: z.string(),
  user: z.string(),
  /** Binary, in base64. */
  key: z.string(),
  createdAtMs: z.number(),
});

/** A public key whose signatures on commits count. It signs nobody in. */
export interface OpenpgpKey {
  /** SHA-256 of the binary key in hexadecimal: not the fingerprint that gpg shows, which depends on its version. */
  readonly fingerprint: string;
  readonly user: string;
  readonly createdAtMs: number;
}

/** Errors: `invalid-argument`, `not-found`, `already-exists`. */
export interface OpenpgpKeys {
  /** `armored`: what `gpg --export --armor` writes. */
  add(user: string, armored: string): Promise<OpenpgpKey>;
  list(): Promise<readonly OpenpgpKey[]>;
  remove(fingerprint: string): Promise<void>;
}

/** With its signatures by others a key may be large; without them it has some kilobytes. */
const maxKeyBytes = 64 * 1024;

export function createOpenpgpKeys(parts: {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
}): OpenpgpKeys {
  const { coordinator, clock } = parts;
  return {
    async add(user, armored) {
      const key = dearmor(armored);
      const fingerprint = createHash('sha256').update(key).digest('hex');
      const record = {
        fingerprint,
        user,
        key: Buffer.from(key).toString('base64'),
        createdAtMs: clock.nowMs(),
      };
      const storeKey = keys.openpgpKey(fingerprint);
      const { succeeded, results } = await coordinator.transaction({
        binding: true,
        compares: [
          { key: keys.user(user), target: 'createRevision', op: '>', operand: 0 },
          { key: storeKey, target: 'createRevision', op: '=', operand: 0 },
        ],
        success: [{ type: 'put', key: storeKey, value: encodeRecord(record) }],
        failure: [{ type: 'get', key: storeKey }],
      });
      if (succeeded) return shown(record);
      const [found] = results;
      throw found?.type === 'get' && found.entries.length > 0
        ? new QuorateError('already-exists', 'this key is registered already')
        : new QuorateError('not-found', `there is no user ${user}`);
    },
    async list() {
      const entries = await readAll(coordinator, keys.openpgpKeys);
      return entries.map((entry) => shown(decodeRecord(openpgpKeyRecord, entry)));
    },
    async remove(fingerprint) {
      const noSuchKey = new QuorateError('not-found', `there is no signing key ${fingerprint}`);
      if (!/^[0-9a-f]{64}$/.test(fingerprint)) throw noSuchKey;
      const key = keys.openpgpKey(fingerprint);
      const { succeeded } = await coordinator.transaction({
        binding: true,
        compares: [{ key, target: 'createRevision', op: '>', operand: 0 }],
        success: [{ type: 'delete', key }],
        failure: [],
      });
      if (!succeeded) throw noSuchKey;
    },
  };
}

function shown({ fingerprint, user, createdAtMs }: z.infer<typeof openpgpKeyRecord>): OpenpgpKey {
  return { fingerprint, user, createdAtMs };
}

/** The binary form of one ASCII-armored public key block (RFC 9580, section 6.2). gpg reads what is inside. */
function dearmor(armored: string): Uint8Array {
  if (armored.includes('PRIVATE KEY BLOCK'))
    throw invalid('that is a private key: give the public');
  const block =
    /^-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n:]+: [^\r\n]*\r?\n)*\r?\n([A-Za-z0-9+/=\r\n]+?)(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n-----END PGP PUBLIC KEY BLOCK-----\s*$/.exec(
      armored.trimStart(),
    );
  const body = block?.[1];
  if (body === undefined) {
    throw invalid('wants one public key as "gpg --export --armor" writes it');
  }
  const key = Buffer.from(body, 'base64');
  // The first packet is a public key (tag 6), in the old or the new form (section 4.2).
  const first = key[0] ?? 0;
  const isPublicKey = (first & 0xfc) === 0x98 || first === 0xc6;
  if (!isPublicKey) throw invalid('holds no OpenPGP public key');
  if (key.length > maxKeyBytes) {
    throw invalid('is larger than 64 KiB: export it with --export-options export-minimal');
  }
  return key;
}

function invalid(message: string): QuorateError {
  return new QuorateError('invalid-argument', `key: ${message}`, {
    details: { fields: [{ path: 'key', problem: message }] },
  });
}
