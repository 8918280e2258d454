import { z } from 'zod';
import type { Backend } from '../../../backends/contract/backend.js';
import type {
  NewRepository,
  Repository,
  RepositoryStats,
} from '../../../backends/contract/repository.js';
import type { StoredSettings } from '../../../backends/contract/settings.js';
import type { Authorizer } from '../../auth/authorizer.js';
import { type Principal, principalName } from '../../auth/principal.js';
import { parseRepositoryName } from '../../core/repository-name.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireOnRepository, requireRepositoryCreator } from '../permissions.js';
import { branch, nothing, pageLimit, repositoryName, settings } from './fields.js';

type RepositoryOptions = Pick<
  AdminApiOptions,
  'backend' | 'authorizer' | 'quotas' | 'logger' | 'hiddenPositions'
>;

/** Names read from the registry at a time, at most, while a page is filled. */
const batchSize = 500;
/** Names that one request looks at: some seconds of work. The next page goes on from there. */
const maxScanned = 100_000;

/** Finds the repository that the path names and checks the right to the action on it. */
export async function openRepository(
  options: Pick<RepositoryOptions, 'backend' | 'authorizer'>,
  call: Call,
  action: 'read' | 'write' | 'admin',
): Promise<Repository> {
  const name = parseRepositoryName(call.param('repository'));
  call.noteRepository(name);
  const repository = await options.backend.repositories.get(name);
  return requireOnRepository(options.authorizer, call.principal, { action, name, repository });
}

/** What is set for one repository, or for the whole server. */
export interface Scoped<S> {
  readonly scope: S | 'server';
  /** Runs a change of what is set, as long as it is still set for that repository. `not-found` otherwise. */
  readonly change: <T>(write: () => Promise<T>) => Promise<T>;
}

/** Throws for who may not administer the repository. */
export async function openScope(
  options: Pick<RepositoryOptions, 'backend' | 'authorizer'>,
  call: Call,
): Promise<Scoped<{ readonly repositoryId: string }>> {
  const repository = await openRepository(options, call, 'admin');
  return {
    scope: { repositoryId: repository.id },
    change: (write) => options.backend.repositories.whileNamed(repository, write),
  };
}

export const serverScoped: Scoped<never> = { scope: 'server', change: (write) => write() };

/** What a new repository starts with: who makes it administers it. */
export function newRepository(
  principal: Principal,
  wanted: {
    readonly name: string;
    readonly defaultBranch?: string | undefined;
    readonly public: boolean;
    readonly objectFormat?: 'sha1' | 'sha256';
    readonly settings?: StoredSettings;
  },
): NewRepository {
  return {
    name: wanted.name,
    defaultBranch: (wanted.defaultBranch ?? 'refs/heads/main').slice('refs/heads/'.length),
    objectFormat: wanted.objectFormat ?? 'sha1',
    settings: wanted.settings ?? {},
    access: {
      public: wanted.public,
      grants: principal.kind === 'user' ? { [principal.name]: 'admin' } : {},
    },
  };
}

/** Making, finding, renaming and deleting repositories. */
export function repositoryEndpoints(options: RepositoryOptions): Endpoint[] {
  const { backend, authorizer } = options;
  return [
    listEndpoint(options),
    createEndpoint(options),
    endpoint({
      method: 'get',
      path: '/repositories/:repository',
      action: 'repository.show',
      input: nothing,
      run: async (call) => {
        const repository = await openRepository(options, call, 'read');
        const administers = authorizer.decide(call.principal, 'admin', repository.name, repository);
        const stats = await backend.repositories.stats(repository);
        return {
          status: 200,
          body: {
            repository: {
              ...shownRepository(repository),
              head: 'symref' in stats.head ? stats.head.symref : stats.head.oid,
              generation: stats.generation,
              refCount: stats.refCount,
              packCount: stats.packCount,
              looseObjectCount: stats.looseObjectCount,
              sizeBytes: stats.sizeBytes,
              ...sharing(stats),
              // Who else has access, and how it is guarded, is for those who administer it.
              ...(administers.allowed
                ? { settings: repository.settings, grants: repository.access.grants }
                : {}),
            },
          },
        };
      },
    }),
    endpoint({
      method: 'post',
      path: '/repositories/:repository/rename',
      action: 'repository.rename',
      input: z.strictObject({ name: repositoryName }),
      run: async (call, input) => {
        const repository = await openRepository(options, call, 'admin');
        const name = parseRepositoryName(input.name);
        requireRepositoryCreator(call.principal, name);
        // Another owner's quota may have no room for it.
        const room = await options.quotas.holdRoom(repository, name);
        try {
          const by = principalName(call.principal);
          const renamed = await backend.repositories.rename(repository, name, by);
          // It is renamed, whatever becomes of this; what is used is measured again.
          await options.quotas.renamed(repository, renamed).catch((error: unknown) => {
            options.logger.warn(
              { component: 'admin', request_id: call.requestId, repo: renamed.id, err: error },
              'the size of a renamed repository is counted later',
            );
          });
          return { status: 200, body: { repository: shownRepository(renamed) } };
        } finally {
          await room.release();
        }
      },
    }),
    endpoint({
      method: 'delete',
      path: '/repositories/:repository',
      action: 'repository.delete',
      input: nothing,
      run: async (call) => {
        const repository = await openRepository(options, call, 'admin');
        const by = principalName(call.principal);
        const { isForgotten } = await backend.repositories.delete(repository, by);
        const cleanUp = isForgotten ? 'done' : 'goes on';
        return { status: 200, body: { deleted: repository.name, cleanUp } };
      },
    }),
  ];
}

/** Each of the others would have a copy of its own. */
function sharing({ sharedBytes, sharedBy = 1 }: RepositoryStats): object {
  return { sharedBytes, sharedBy, savedBytes: sharedBytes * Math.max(0, sharedBy - 1) };
}

function createEndpoint({ backend }: RepositoryOptions): Endpoint {
  return endpoint({
    method: 'post',
    path: '/repositories',
    action: 'repository.create',
    input: z.strictObject({
      name: repositoryName,
      public: z.boolean().default(false),
      defaultBranch: branch.optional(),
      objectFormat: z
        .enum(['sha1', 'sha256'], { error: 'has to be sha1 or sha256' })
        .default('sha1'),
      settings: settings.default({}),
    }),
    run: async (call, { settings, ...input }) => {
      const name = parseRepositoryName(input.name);
      call.noteRepository(name);
      requireRepositoryCreator(call.principal, name);
      const stored = Object.fromEntries(
        Object.entries(settings).filter((entry): entry is [string, string] => entry[1] !== null),
      );
      const repository = await backend.repositories.create(
        newRepository(call.principal, { ...input, name, settings: stored }),
        principalName(call.principal),
      );
      return { status: 201, body: { repository: shownRepository(repository) } };
    },
  });
}

function listEndpoint({ backend, authorizer, hiddenPositions }: RepositoryOptions): Endpoint {
  return endpoint({
    method: 'get',
    path: '/repositories',
    action: 'repository.list',
    input: z.strictObject({
      prefix: z.string().max(1024).optional(),
      after: z.string().max(2048).optional(),
      limit: pageLimit,
    }),
    run: async (call, { prefix, after, limit }) => {
      // One more than the page tells whether there is a next one without naming what the caller may not see.
      const { found, stoppedAt } = await readable(backend, authorizer, {
        principal: call.principal,
        page: {
          ...(prefix === undefined ? {} : { prefix }),
          ...(after === undefined ? {} : { after: await hiddenPositions.open(after) }),
        },
        count: limit + 1,
      });
      const page = found.slice(0, limit);
      const more = found.length > limit ? page.at(-1)?.name : undefined;
      const next = stoppedAt === undefined ? more : await hiddenPositions.seal(stoppedAt);
      return {
        status: 200,
        body: { repositories: page.map(shownRepository), next: next ?? null },
      };
    },
  });
}

/**
 * The first `count` repositories of the page that the principal may read, in name order; fewer, with the name to go on
 * after, when as many were looked at as one request may.
 */
async function readable(
  backend: Backend,
  authorizer: Authorizer,
  wanted: {
    readonly principal: Principal;
    readonly page: { readonly prefix?: string; readonly after?: string };
    readonly count: number;
  },
): Promise<{ readonly found: readonly Repository[]; readonly stoppedAt?: string | undefined }> {
  const found: Repository[] = [];
  let page = wanted.page;
  // Who may read all, as administrators, has the page in the first batch.
  let limit = Math.min(wanted.count, batchSize);
  for (let scanned = 0; scanned < maxScanned; scanned += limit, limit = batchSize) {
    const batch = await backend.repositories.list({ ...page, limit });
    for (const repository of batch) {
      const { allowed } = authorizer.decide(wanted.principal, 'read', repository.name, repository);
      if (allowed && found.push(repository) === wanted.count) return { found };
    }
    const last = batch.at(-1);
    if (last === undefined || batch.length < limit) return { found };
    page = { ...page, after: last.name };
  }
  return { found, stoppedAt: page.after };
}

export function shownRepository(repository: Repository): object {
  return {
    id: repository.id,
    name: repository.name,
    public: repository.access.public,
    objectFormat: repository.objectFormat,
    createdAt: new Date(repository.createdAtMs).toISOString(),
    epoch: repository.epoch,
  };
}
