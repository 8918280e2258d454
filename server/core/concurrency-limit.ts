/** Counts what runs by key and refuses above a maximum. Holds an entry only while something runs. */
export class ConcurrencyLimit {
  readonly #max: number;
  readonly #running = new Map<string, number>();

  constructor(max: number) {
    this.#max = max;
  }

  /** False when the key is at its maximum; otherwise `leave` has to follow once. */
  enter(key: string): boolean {
    const running = this.#running.get(key) ?? 0;
    if (running >= this.#max) return false;
    this.#running.set(key, running + 1);
    return true;
  }

  leave(key: string): void {
    const running = this.#running.get(key) ?? 0;
    if (running <= 1) this.#running.delete(key);
    else this.#running.set(key, running - 1);
  }

  /** Keys with something running. */
  get size(): number {
    return this.#running.size;
  }
}

/** The address as limits count it: IPv4 whole (also when mapped into IPv6), IPv6 by its /64, which one host owns. */
export function addressKey(address: string): string {
  const plain = address.startsWith('::ffff:') ? address.slice('::ffff:'.length) : address;
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::', 2);
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const after = tail === '' ? 0 : tail.split(':').length;
    while (groups.length + after < 8) groups.push('0');
  }
  return `${groups.slice(0, 4).join(':')}::/64`;
}
