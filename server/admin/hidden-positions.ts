import { createCipheriv, createDecipheriv } from 'node:crypto';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';

const nonceBytes = 12;
const tagBytes = 16;
const secretBytes = 32;
/** No name begins with it. */
const mark = '~';

/**
 * Where a page of names ended at one that the caller may not know: encrypted (AES-256-GCM) with a secret that all
 * front-ends share in the coordinator, so that the next page goes on there, through whichever of them it is asked for.
 */
export class HiddenPositions {
  readonly #coordinator: Coordinator;
  readonly #random: Random;
  #secret: Buffer | undefined;

  constructor(parts: { readonly coordinator: Coordinator; readonly random: Random }) {
    this.#coordinator = parts.coordinator;
    this.#random = parts.random;
  }

  /** At most 4/3 as long as the name, and 40 characters. */
  async seal(name: string): Promise<string> {
    const nonce = this.#random.bytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', await this.#key(), nonce);
    const sealed = Buffer.concat([cipher.update(name, 'utf8'), cipher.final()]);
    const position = Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
    return `${mark}${position.toString('base64url')}`;
  }

  /** The name that the next page comes after. `invalid-argument` for what no server of this cluster has sealed. */
  async open(after: string): Promise<string> {
    if (!after.startsWith(mark)) return after;
    const bytes = Buffer.from(after.slice(mark.length), 'base64url');
    const key = await this.#key();
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, nonceBytes), {
        authTagLength: tagBytes,
      }).setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes));
      const sealed = bytes.subarray(nonceBytes + tagBytes);
      return Buffer.concat([decipher.update(sealed), decipher.final()]).toString('utf8');
    } catch {
      const problem = 'is no place in this list; ask again from its beginning';
      throw new QuorateError('invalid-argument', `after: ${problem}`, {
        details: { fields: [{ path: 'after', problem }] },
      });
    }
  }

  async #key(): Promise<Buffer> {
    this.#secret ??= await this.#sharedSecret();
    return this.#secret;
  }

  /** Made when it is first wanted. */
  async #sharedSecret(): Promise<Buffer> {
    const key = keys.hiddenPositions;
    const made = Buffer.from(this.#random.bytes(secretBytes));
    const { succeeded, results } = await this.#coordinator.transaction({
      compares: [{ key, target: 'createRevision', op: '=', operand: 0 }],
      success: [{ type: 'put', key, value: made }],
      failure: [{ type: 'get', key }],
    });
    if (succeeded) return made;
    const [stored] = results.flatMap((one) => (one.type === 'get' ? one.entries : []));
    if (stored?.value.length === secretBytes) return Buffer.from(stored.value);
    throw new QuorateError('data-corrupt', `the coordinator's record ${key} is damaged`);
  }
}
