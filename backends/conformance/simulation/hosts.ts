import type { PeerSource } from '../../contract/replica.js';
import type { LocalReplica } from '../../local/local-replica.js';
import type { FrontEnd } from './front-end-host.js';
import type { SimulatedDisk } from './simulated-disk.js';
import type { SimulatedProcess } from './simulated-process.js';

/** A machine, with the process that runs on it. */
export interface Host {
  readonly name: string;
  disk: SimulatedDisk;
  readonly skewMs: number;
  readonly rate: number;
  boots: number;
  process: SimulatedProcess | undefined;
}

export interface StorageHost extends Host {
  readonly kind: 'store';
  /** Known once it has run. */
  storeId: string | undefined;
  replica: LocalReplica | undefined;
  /** Where its copies get what they lack. */
  source: ((id: string) => PeerSource) | undefined;
  /** When it was last known to run. */
  lastSeenMs: number;
  readonly zone: string;
  /** `spare`: not bought yet; `gone`: never to come back. */
  presence: 'spare' | 'here' | 'gone';
}

export interface FrontEndHost extends Host {
  readonly kind: 'front-end';
  frontEnd: FrontEnd | undefined;
}
