/** What the server and a spawn helper say to each other over the helper's IPC channel. */

/** One process to start. Its standard streams are sockets that the helper connects to the server. */
export interface SpawnMessage {
  readonly type: 'spawn';
  readonly job: number;
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** First bytes of each connection, in hexadecimal: only who was told them can be the child's stream. */
  readonly tokens: {
    /** Absent: stdin is /dev/null. */
    readonly stdin?: string;
    readonly stdout: string;
    readonly stderr: string;
  };
  /** Processes that the child left running may go on after it exited. */
  readonly leaveDescendants: boolean;
}

/** SIGTERM to the job's process group, SIGKILL after a grace. Unknown and finished jobs are ignored. */
export interface KillMessage {
  readonly type: 'kill';
  readonly job: number;
}

export type ToHelper = SpawnMessage | KillMessage;

export type FromHelper =
  /** The helper holds its run lock and takes jobs. */
  | { readonly type: 'ready' }
  | { readonly type: 'spawned'; readonly job: number; readonly pid: number }
  /** Nothing runs and nothing ever ran. `code` is the system's (`ENOENT`, `EAGAIN`, ...). */
  | { readonly type: 'failed'; readonly job: number; readonly code: string }
  | {
      readonly type: 'exit';
      readonly job: number;
      readonly exitCode: number | null;
      readonly signal: string | null;
    };

/** Bytes of a token: 128 random bits. */
export const tokenBytes = 16;

/** Environment of a helper: path of the socket it connects to, and of the run lock (may be empty). */
export const socketVariable = 'QUORATE_SPAWN_SOCKET';
export const runLockVariable = 'QUORATE_RUN_LOCK';

/** Descriptor on which a child holds the run lock; helpers hold it on another one. */
export const runLockDescriptor = 3;

const toHelperTypes: ReadonlySet<unknown> = new Set<ToHelper['type']>(['spawn', 'kill']);
const fromHelperTypes: ReadonlySet<unknown> = new Set<FromHelper['type']>([
  'ready',
  'spawned',
  'failed',
  'exit',
]);

/** Both ends are this program, over a channel that nobody else can open: the tag is check enough. */
export function isToHelper(message: unknown): message is ToHelper {
  return hasType(message) && toHelperTypes.has(message.type);
}

export function isFromHelper(message: unknown): message is FromHelper {
  return hasType(message) && fromHelperTypes.has(message.type);
}

function hasType(message: unknown): message is { readonly type: unknown } {
  return typeof message === 'object' && message !== null && 'type' in message;
}
