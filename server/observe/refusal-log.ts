import type { Clock } from '../../backends/contract/environment.js';
import type { AuditEvent, AuditLog } from './audit.js';

/** More of one address and kind in a minute are counted, not written: they would push all else out of the log. */
const maxPerMinute = 60;
/** Addresses remembered, some 100 bytes each; beyond them the longest known is forgotten. */
const maxRemembered = 10_000;
const minuteMs = 60_000;

export type Refusal = Omit<AuditEvent, 'outcome' | 'event'> & {
  /** `access`: not allowed, or not to be known of. `limit`: too much, too many. */
  readonly event: 'access' | 'limit';
};

interface Window {
  startedMs: number;
  recorded: number;
  suppressed: number;
}

/**
 * Writes refusals into the audit log, and keeps a client that is refused again and again from filling it: of each
 * address and kind so many a minute, with `suppressed` in the next one saying how many were left out before it.
 */
export class RefusalLog {
  readonly #audit: AuditLog;
  readonly #clock: Clock;
  readonly #windows = new Map<string, Window>();

  constructor(parts: { readonly audit: AuditLog; readonly clock: Clock }) {
    this.#audit = parts.audit;
    this.#clock = parts.clock;
  }

  record(refusal: Refusal): void {
    const window = this.#windowOf(`${refusal.event} ${refusal.remoteAddress ?? ''}`);
    if (window.recorded >= maxPerMinute) {
      window.suppressed += 1;
      return;
    }
    window.recorded += 1;
    const { suppressed } = window;
    window.suppressed = 0;
    this.#audit.record({
      ...refusal,
      outcome: 'refused',
      details: suppressed === 0 ? refusal.details : { ...refusal.details, suppressed },
    });
  }

  #windowOf(key: string): Window {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#windows.get(key);
    if (known !== undefined) {
      if (nowMs - known.startedMs >= minuteMs) {
        known.startedMs = nowMs;
        known.recorded = 0;
      }
      return known;
    }
    const [oldest] = this.#windows.keys();
    if (this.#windows.size >= maxRemembered && oldest !== undefined) this.#windows.delete(oldest);
    const fresh = { startedMs: nowMs, recorded: 0, suppressed: 0 };
    this.#windows.set(key, fresh);
    return fresh;
  }
}
