import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { join } from 'node:path';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Logger, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import { repeated } from '../auth/repeated.js';
import {
  type HostKey,
  hostKeyFiles,
  parseHostKey,
  readPrivate,
  soundKeyPair,
} from './host-keys.js';

export interface SharedHostKeysOptions {
  readonly coordinator: Coordinator;
  /** The cluster's: the keys lie encrypted with it, so that a copy of the coordinator's data gives none away. */
  readonly secret: Buffer;
  /** The cluster's secret before this one: keys that lie encrypted with it are encrypted anew. */
  readonly previous?: Buffer;
  /** Keys that lie here become the cluster's, if it has none yet: a server that becomes a cluster keeps its keys. */
  readonly directory: string;
  readonly random: Random;
  readonly logger: Logger;
}

/**
 * The SSH host keys that all front-ends of a cluster have, from the coordinator; made by the first that starts. Throws
 * `failed-precondition` when they were put there with another secret. What the coordinator's answer was lost of is looked
 * for again, a few times: then it throws `outcome-unknown`.
 */
export async function loadSharedHostKeys(
  options: SharedHostKeysOptions,
): Promise<readonly HostKey[]> {
  const found: HostKey[] = [];
  for (const { name, generate } of hostKeyFiles) {
    const made = async (): Promise<string> => {
      const own = await readPrivate(join(options.directory, name), options.logger);
      return own ?? (await soundKeyPair(generate)).private;
    };
    // Whoever was first stays, be it this process by a call of which it heard nothing.
    const text = await repeated(
      async () => (await fetchKey(options, name)) ?? (await offerKey(options, name, made)),
    );
    found.push(parseHostKey(text, name));
  }
  return found;
}

async function fetchKey(options: SharedHostKeysOptions, name: string): Promise<string | undefined> {
  const { coordinator, secret, previous, random } = options;
  const key = keys.hostKey(name);
  const kv = await coordinator.get(key);
  if (kv === undefined) return undefined;
  const text = opened(secret, name, kv.value);
  if (text !== undefined) return text;
  const before = previous === undefined ? undefined : opened(previous, name, kv.value);
  if (before === undefined) throw anotherSecret();
  const value = seal(secret, { name, text: before, nonce: random.bytes(12) });
  // Whoever is first with that has done it for all: the text is the same.
  await coordinator.transaction({
    compares: [{ key, target: 'modRevision', op: '=', operand: kv.modRevision }],
    success: [{ type: 'put', key, value }],
    failure: [],
  });
  return before;
}

function anotherSecret(): QuorateError {
  return new QuorateError(
    'failed-precondition',
    'the SSH host keys in the coordinator are not for this cluster secret: start with the secret that the cluster was made with; or, if it was changed, name the one of before with cluster.previousSecretFile, once; or give keys with ssh.hostKeys',
  );
}

/** Puts a key there, unless somebody was first; returns the one that is there. */
async function offerKey(
  options: SharedHostKeysOptions,
  name: string,
  make: () => Promise<string>,
): Promise<string> {
  const { coordinator, secret, random } = options;
  const text = await make();
  const key = keys.hostKey(name);
  const { succeeded } = await coordinator.transaction({
    compares: [{ key, target: 'createRevision', op: '=', operand: 0 }],
    success: [{ type: 'put', key, value: seal(secret, { name, text, nonce: random.bytes(12) }) }],
    failure: [],
  });
  return succeeded ? text : ((await fetchKey(options, name)) ?? text);
}

/** nonce (12 bytes), tag (16), ciphertext: AES-256-GCM under a key of this purpose alone. */
function seal(
  secret: Buffer,
  { name, text, nonce }: { name: string; text: string; nonce: Uint8Array },
): Buffer {
  const cipher = createCipheriv('aes-256-gcm', keyOf(secret), nonce).setAAD(Buffer.from(name));
  const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
}

/** Undefined when another secret sealed it. */
function opened(secret: Buffer, name: string, value: Uint8Array): string | undefined {
  const bytes = Buffer.from(value);
  try {
    const decipher = createDecipheriv('aes-256-gcm', keyOf(secret), bytes.subarray(0, 12), {
      authTagLength: 16,
    })
      .setAAD(Buffer.from(name))
      .setAuthTag(bytes.subarray(12, 28));
    return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString('utf8');
  } catch {
    return undefined;
  }
}

function keyOf(secret: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', 'quorate ssh host keys', 32));
}
