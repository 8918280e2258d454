import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { VisibleRefs } from '../contract/visible-refs.js';
import type { Logger } from '../contract/environment.js';
import type { RefSnapshot } from '../contract/objects.js';
import { writeRefView } from '../git/ref-view.js';
import { removeTree } from '../git/repository-files.js';
import type { OpenRepository } from './open-repository.js';
import type { Store } from './store.js';

interface View {
  readonly directory: string;
  readonly ready: Promise<void>;
  users: number;
}

/** Views kept beyond their last user, for the next fetch of the same generation. Each is one file of all refs. */
const maxIdleViews = 256;

/**
 * Ref views: small git directories that hold the visible refs of one generation and borrow the repository's objects.
 * Git runs against them, so that a fetch sees one generation whatever is pushed meanwhile.
 */
export class RefViews {
  readonly #store: Store;
  readonly #logger: Logger;
  /** In order of last use. */
  readonly #views = new Map<string, View>();
  #made = 0;

  constructor(store: Store, logger: Logger) {
    this.#store = store;
    this.#logger = logger;
  }

  /** Runs `use` with the directory of a view, which exists until `release` is called. */
  async acquire(
    repository: OpenRepository,
    snapshot: RefSnapshot,
    visible: VisibleRefs,
  ): Promise<{ directory: string; release: () => void }> {
    const key = `${repository.id} ${snapshot.generation} ${hash(visible.key)}`;
    const view = this.#views.get(key) ?? this.#make(repository, snapshot, visible);
    this.#views.delete(key);
    this.#views.set(key, view);
    view.users++;
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      view.users--;
      if (view.users === 0 && snapshot.generation < repository.generation) this.#drop(key, view);
      this.#evict();
    };
    try {
      await view.ready;
      return { directory: view.directory, release };
    } catch (error) {
      this.#drop(key, view);
      throw error;
    }
  }

  #make(repository: OpenRepository, snapshot: RefSnapshot, visible: VisibleRefs): View {
    const directory = join(this.#store.viewsDirectory, `${repository.id}-${this.#made++}`);
    const ready = writeRefView({
      directory,
      snapshot,
      visible,
      objectsDir: repository.objectsDirectory,
      objectFormat: repository.objectFormat,
    });
    return { directory, ready, users: 0 };
  }

  #evict(): void {
    for (const [key, view] of this.#views) {
      if (this.#views.size <= maxIdleViews) return;
      if (view.users > 0) continue;
      this.#drop(key, view);
    }
  }

  #drop(key: string, view: View): void {
    // Another may have been made in its place.
    if (this.#views.get(key) === view) this.#views.delete(key);
    removeTree(view.directory).catch((error: unknown) => {
      this.#logger.warn({ component: 'ref-views', err: error }, 'a ref view could not be removed');
    });
  }
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
