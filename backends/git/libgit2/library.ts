import koffi from 'koffi';
import type { LibraryHandle, TypeObject } from 'koffi';
import type { ObjectType } from '../../contract/objects.js';

/**
 * libgit2 by FFI, as far as indexing a pack needs it. Only functions whose signatures are the same in 1.0 to 1.9, and
 * no struct of libgit2's but `git_error` (stable since 0.1): layouts differ between versions.
 * Synchronous: for a process of its own (koffi's asynchronous calls crash at exit). Not for use on several threads.
 */
export interface Libgit2 {
  /** `1.5.1` */
  readonly version: string;
  openStore(objectsDir: string): ObjectStore;
}

/** An object database. Close it. Methods throw `Libgit2Error`. */
export interface ObjectStore {
  /** Writes `pack-*.pack` and `.idx` into `packDir`, synced, with the bases of a thin pack taken from this store. */
  indexPack(packDir: string, pack: Uint8Array): void;
  /** Type and size of an object, or undefined when it is not there (or is damaged). */
  header(oid: Uint8Array): { readonly type: ObjectType; readonly sizeBytes: number } | undefined;
  /** Calls `use` with the content, which has been compared with the id and is gone when `use` returns. */
  read<T>(oid: Uint8Array, use: (content: Buffer) => T): T;
  close(): void;
}

/** libgit2 refused. `class` is libgit2's number (`GIT_ERROR_*`): its text is for logs. */
export class Libgit2Error extends Error {
  readonly class: number;
  constructor(message: string, errorClass: number) {
    super(message);
    this.name = 'Libgit2Error';
    this.class = errorClass;
  }
}

const GIT_OPT_SET_CACHE_MAX_SIZE = 7;
const GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION = 22;
/** Objects that libgit2 keeps in memory, of all open stores together: some thousand commits and trees. */
const CACHE_BYTES = 16 * 1024 ** 2;
const MAJOR_VERSION = 1;
/** Debian's spelling comes before the development link, which may be of another build. */
const sonames = [
  ...[9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map((minor) => `libgit2.so.1.${minor}`),
  'libgit2.so',
  'libgit2.dylib',
];

/** The newest libgit2 1.x on this machine; undefined when there is none. What it writes the caller syncs. */
export function loadLibgit2(names: readonly string[] = sonames): Libgit2 | undefined {
  for (const name of names) {
    const handle = tryLoad(name);
    if (handle === undefined) continue;
    const bound = bind(handle);
    bound.init();
    const [major, minor, revision] = [new Int32Array(1), new Int32Array(1), new Int32Array(1)];
    bound.version(major, minor, revision);
    if (major[0] !== MAJOR_VERSION) continue;
    bound.check(bound.options(GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, 'int', 1));
    bound.check(bound.options(GIT_OPT_SET_CACHE_MAX_SIZE, 'intptr_t', CACHE_BYTES));
    return {
      version: `${major[0]}.${minor[0]}.${revision[0]}`,
      openStore: (objectsDir) => openStore(bound, objectsDir),
    };
  }
  return undefined;
}

function tryLoad(name: string): LibraryHandle | undefined {
  try {
    return koffi.load(name);
  } catch {
    return undefined;
  }
}

type Pointer = bigint | null;
/** A libgit2 function that answers 0, or a negative number and an error. */
type IntCall = (...parameters: unknown[]) => number;
type ParameterType = TypeObject | ReturnType<typeof koffi.out> | string;
type Bound = ReturnType<typeof bind>;

function bind(library: LibraryHandle) {
  const outPointer = koffi.out(koffi.pointer('void *'));
  const call = (name: string, ...types: ParameterType[]): IntCall =>
    library.func(name, 'int', types);
  const release = (name: string): ((pointer: Pointer) => void) =>
    library.func(name, 'void', ['void *']);
  const lastError: () => Pointer = library.func('git_error_last', 'void *', []);
  const options: IntCall = library.func('int git_libgit2_opts(int option, ...)');
  const objectData: (object: Pointer) => Pointer = library.func('git_odb_object_data', 'void *', [
    'void *',
  ]);
  const objectSize: (object: Pointer) => number | bigint = library.func(
    'git_odb_object_size',
    'size_t',
    ['void *'],
  );
  const errorType = koffi.struct({ message: 'const char *', class: 'int' });
  return {
    init: call('git_libgit2_init'),
    version: call('git_libgit2_version', 'void *', 'void *', 'void *'),
    options,
    odbOpen: call('git_odb_open', outPointer, 'str'),
    odbFree: release('git_odb_free'),
    odbHeader: call('git_odb_read_header', 'void *', 'void *', 'void *', 'void *'),
    odbRead: call('git_odb_read', outPointer, 'void *', 'void *'),
    objectData,
    objectSize,
    objectFree: release('git_odb_object_free'),
    indexerNew: call('git_indexer_new', outPointer, 'str', 'uint', 'void *', 'void *'),
    indexerAppend: call('git_indexer_append', 'void *', 'void *', 'size_t', 'void *'),
    indexerCommit: call('git_indexer_commit', 'void *', 'void *'),
    indexerFree: release('git_indexer_free'),
    check(code: number): void {
      if (code >= 0) return;
      const pointer = lastError();
      if (pointer === null) throw new Libgit2Error(`libgit2 failed (${code})`, 0);
      const error: { message: string; class: number } = koffi.decode(pointer, errorType);
      throw new Libgit2Error(error.message, error.class);
    },
  };
}

/** `git_indexer_progress` is seven fields of at most 8 bytes; nothing is read from it. */
const PROGRESS_BYTES = 64;
const typesByNumber: Readonly<Record<number, ObjectType>> = {
  1: 'commit',
  2: 'tree',
  3: 'blob',
  4: 'tag',
};

function openStore(git: Bound, objectsDir: string): ObjectStore {
  const opened: [Pointer] = [null];
  git.check(git.odbOpen(opened, objectsDir));
  const odb = opened[0];
  const size = new BigUint64Array(1);
  const type = new Int32Array(1);
  return {
    indexPack(packDir, pack) {
      const made: [Pointer] = [null];
      git.check(git.indexerNew(made, packDir, 0, odb, null));
      const progress = Buffer.alloc(PROGRESS_BYTES);
      try {
        git.check(git.indexerAppend(made[0], pack, pack.byteLength, progress));
        git.check(git.indexerCommit(made[0], progress));
      } finally {
        git.indexerFree(made[0]);
      }
    },
    header(oid) {
      if (git.odbHeader(size, type, odb, oid) < 0) return undefined;
      const objectType = typesByNumber[type[0] ?? 0];
      if (objectType === undefined) return undefined;
      return { type: objectType, sizeBytes: Number(size[0]) };
    },
    read(oid, use) {
      const found: [Pointer] = [null];
      git.check(git.odbRead(found, odb, oid));
      try {
        const length = Number(git.objectSize(found[0]));
        if (length === 0) return use(Buffer.alloc(0));
        return use(Buffer.from(koffi.view(git.objectData(found[0]), length)));
      } finally {
        git.objectFree(found[0]);
      }
    },
    close: () => git.odbFree(odb),
  };
}
