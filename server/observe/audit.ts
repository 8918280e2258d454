/** One line of the append-only audit log. Secrets never get in. */
export interface AuditEvent {
  readonly event: 'authentication' | 'access' | 'limit' | 'push' | 'admin';
  readonly outcome: 'ok' | 'refused' | 'error';
  readonly actor: string;
  readonly remoteAddress?: string;
  readonly transport?: 'http' | 'ssh' | 'admin';
  readonly requestId?: string;
  readonly repository?: string;
  /** `push`: every ref with old and new. `admin`: the action and its arguments. `authentication`: how, and why not. */
  readonly details: Readonly<Record<string, unknown>>;
}

export interface AuditLog {
  /** Queued at once and written in order; never throws, never blocks the caller. Bounded: when the disk does not keep up, `flush` is awaited by the writers of pushes. */
  record(event: AuditEvent): void;
  /** Resolves when everything recorded before is on disk. */
  flush(): Promise<void>;
  close(): Promise<void>;
}
