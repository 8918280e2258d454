/**
 * How a request proves that its sender has the cluster's secret, without showing it:
 *
 *     Quorate-Client: <client>
 *     Authorization: Quorate-Cluster <boot> <count> <digest> <mac>
 *
 * boot: random, of the server's process, told to whoever asks (`Quorate-Boot`), so that nothing recorded before its
 * start is good. client: random, of the sender's process. count: 1, 2, 3, ... of this client; the server takes each
 * once, so that nothing recorded is good twice. digest: SHA-256 of the call's arguments. mac: HMAC-SHA-256 of all that
 * and the path, which names the store: a request to one store is no good at another. No clock is asked.
 * The answer carries a MAC of the request's MAC (`Quorate-Proof`), by which the caller knows the server.
 *
 * What streams behind the arguments is not covered, nor is anything kept from listeners: without TLS the network
 * between the members has to be trusted for that.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

export interface SignedRequest {
  readonly boot: string;
  readonly client: string;
  readonly count: number;
  readonly path: string;
  readonly argumentsDigest: string;
}

const scheme = 'Quorate-Cluster';
const idPattern = /^[0-9a-f]{32}$/;
const digestPattern = /^[0-9a-f]{64}$/;

export function digestOf(payload: Uint8Array): string {
  return createHash('sha256').update(payload).digest('hex');
}

export function sign(
  secret: Buffer,
  request: SignedRequest,
): { readonly authorization: string; readonly mac: string } {
  const { boot, count, argumentsDigest } = request;
  const mac = macOf(secret, request);
  return { mac, authorization: `${scheme} ${boot} ${count} ${argumentsDigest} ${mac}` };
}

/** What the server proves itself with. */
export function answerProof(secret: Buffer, requestMac: string): string {
  return createHmac('sha256', secret).update(`quorate answer\n${requestMac}`).digest('hex');
}

export function sameText(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function macOf(
  secret: Buffer,
  { boot, client, count, path, argumentsDigest }: SignedRequest,
): string {
  const text = ['quorate request', path, boot, client, String(count), argumentsDigest].join('\n');
  return createHmac('sha256', secret).update(text).digest('hex');
}

/** Counts below the highest one by more than this are not taken: requests overtake each other, but not by so much. */
const windowSize = 4096;
/** Front-ends and peers since the start of this process. Beyond, all have to begin anew. */
const maxClients = 10_000;

/** Which counts of a client were used. */
class UsedCounts {
  #highest = 0;
  readonly #used = new Set<number>();

  /** False when this count was used, or may have been. */
  use(count: number): boolean {
    if (count <= this.#highest - windowSize || this.#used.has(count)) return false;
    this.#used.add(count);
    this.#highest = Math.max(this.#highest, count);
    if (this.#used.size > 2 * windowSize) {
      for (const old of this.#used) if (old <= this.#highest - windowSize) this.#used.delete(old);
    }
    return true;
  }
}

export type Verdict =
  | { readonly good: true; readonly mac: string; readonly argumentsDigest: string }
  | { readonly good: false };

/** The server's side: takes each signed request once. */
export class SignatureCheck {
  readonly #secret: Buffer;
  readonly #newBoot: () => string;
  readonly #clients = new Map<string, UsedCounts>();
  #boot: string;

  /** `newBoot` makes 32 random hexadecimal digits. */
  constructor(secret: Buffer, newBoot: () => string) {
    this.#secret = secret;
    this.#newBoot = newBoot;
    this.#boot = newBoot();
  }

  /** What requests have to name. */
  get boot(): string {
    return this.#boot;
  }

  check(
    authorization: string | undefined,
    { client, path }: { readonly client: string; readonly path: string },
  ): Verdict {
    const [given, boot = '', count = '', argumentsDigest = '', mac = '', ...more] = (
      authorization ?? ''
    ).split(' ');
    const wellFormed =
      given === scheme &&
      more.length === 0 &&
      idPattern.test(client) &&
      digestPattern.test(argumentsDigest) &&
      /^[1-9]\d{0,15}$/.test(count);
    // Only what is made of the secret tells something by how far a guess was right.
    if (!wellFormed || boot !== this.#boot) return { good: false };
    const request = { boot, client, count: Number(count), path, argumentsDigest };
    if (!sameText(mac, macOf(this.#secret, request))) return { good: false };
    if (!this.#usedBy(client).use(request.count)) return { good: false };
    return { good: true, mac, argumentsDigest };
  }

  #usedBy(client: string): UsedCounts {
    let used = this.#clients.get(client);
    if (used === undefined) {
      if (this.#clients.size >= maxClients) {
        // Forgetting who used what would make it good again, were the boot still the same.
        this.#clients.clear();
        this.#boot = this.#newBoot();
      }
      used = new UsedCounts();
      this.#clients.set(client, used);
    }
    return used;
  }
}
