import type { Measured, Sample } from './measure.js';

/** Median of at least one number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  if (upper === undefined || lower === undefined) throw new Error('the median of nothing');
  return (lower + upper) / 2;
}

/** What is compared between peers, in milliseconds per operation. */
export interface Figures {
  readonly wallMs: number;
  readonly cpuMs?: number;
  readonly cpuUntilIdleMs?: number;
}

export function medians(samples: readonly Sample[]): Figures | undefined {
  if (samples.length === 0) return undefined;
  const cpu = samples.flatMap(({ cpuMs }) => cpuMs ?? []);
  const idle = samples.flatMap(({ cpuUntilIdleMs }) => cpuUntilIdleMs ?? []);
  return {
    wallMs: median(samples.map(({ wallMs }) => wallMs)),
    ...(cpu.length === 0 ? {} : { cpuMs: median(cpu) }),
    ...(idle.length === 0 ? {} : { cpuUntilIdleMs: median(idle) }),
  };
}

function ratio(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined || b === 0 ? undefined : a / b;
}

/** Figures as multiples of another's: below 1 is better. Undefined where there is nothing to compare with. */
export type Ratios = Partial<Record<keyof Figures, number>>;

export function ratios(figures: Figures, to: Figures | undefined): Ratios {
  if (to === undefined) return {};
  const all = {
    wallMs: ratio(figures.wallMs, to.wallMs),
    cpuMs: ratio(figures.cpuMs, to.cpuMs),
    cpuUntilIdleMs: ratio(figures.cpuUntilIdleMs, to.cpuUntilIdleMs),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** A peer's line of the table. */
export interface PeerResult {
  readonly peer: string;
  readonly medians?: Figures;
  readonly toNginx?: Ratios;
  /** Servers of SSH only. */
  readonly toOpenSsh?: Ratios;
  /** Why it has no figures, or fewer than the others. */
  readonly note?: string;
  readonly samples: readonly Sample[];
}

export interface CaseResult {
  readonly key: string;
  readonly title: string;
  /** What was measured on, in words. */
  readonly repository: string;
  readonly peers: readonly PeerResult[];
}

/** Names of the peers that ratios refer to. */
export const nginxName = 'nginx + http-backend';
export const openSshName = 'OpenSSH';

export function compare(measured: readonly Measured[]): readonly PeerResult[] {
  const of = (name: string) =>
    medians(measured.find(({ peer }) => peer.name === name)?.samples ?? []);
  const nginx = of(nginxName);
  const openSsh = of(openSshName);
  return measured.map(({ peer, samples, failure }) => {
    const figures = medians(samples);
    const note = failure === undefined ? {} : { note: failure };
    if (figures === undefined) return { peer: peer.name, samples, ...note };
    return {
      peer: peer.name,
      medians: figures,
      toNginx: ratios(figures, nginx),
      ...(peer.transport === 'ssh' ? { toOpenSsh: ratios(figures, openSsh) } : {}),
      samples,
      ...note,
    };
  });
}
