/** A server under measurement. All serve on loopback, from disks and repositories of their own. */
export interface Peer {
  readonly name: string;
  /** What its ratios are taken against besides nginx: servers of SSH pay for SSH. */
  readonly transport: 'http' | 'git' | 'ssh';
  /** Processes whose trees are the server. */
  readonly pids: readonly number[];
  /** Its processes ignore that children end: the kernel drops their CPU time, and `/proc` knows nothing of it. */
  readonly losesCpuTime: boolean;
  /** Environment for a git that talks to it. */
  readonly env: Readonly<Record<string, string>>;
  /** Takes protocol v2 over HTTP, so that the keep-alive client of `ls-refs.ts` can ask it. */
  readonly v2Http: boolean;
  /** Longest pause between a push and the background work that it causes. */
  readonly quietMs: number;
  url(repository: string): string;
  /** Takes a copy of a bare repository, repacked as the server's own housekeeping would leave it. */
  load(repository: string, barePath: string): Promise<void>;
  /** Makes an empty repository. */
  create(repository: string): Promise<void>;
  remove(repository: string): Promise<void>;
  stop(): Promise<void>;
}

export interface PeerOptions {
  /** A directory of the peer's own; exists, empty. */
  readonly directory: string;
}
