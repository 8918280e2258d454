import { z } from 'zod';
import { asQuorateError, QuorateError, retrySoon } from '../../../backends/contract/errors.js';
import type { Repository } from '../../../backends/contract/repository.js';
import { principalName } from '../../auth/principal.js';
import { parseRepositoryName } from '../../core/repository-name.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { type ImportSource, parseImportSource } from '../import-source.js';
import {
  requireOnRepository,
  requireRepositoryCreator,
  requireServerAdmin,
} from '../permissions.js';
import { nothing } from './fields.js';
import { newRepository, openRepository, shownRepository } from './repositories.js';

type LongRunningOptions = Pick<AdminApiOptions, 'backend' | 'authorizer' | 'logger'>;

/** Each keeps a git at work with network and disk; more at once only slow each other and the pushes down. */
const maxRunning = 8;

/** Import and maintenance: minutes of work, told as a stream, ended when the client leaves. */
export function longRunningEndpoints(options: LongRunningOptions): Endpoint[] {
  const { backend } = options;
  let running = 0;

  /** Runs `work` as one of the few at a time, and streams its result. */
  const stream = async (call: Call, work: () => Promise<object>): Promise<undefined> => {
    if (running >= maxRunning) {
      throw new QuorateError(
        'resource-exhausted',
        `${maxRunning} imports and maintenance runs are at work already`,
        { details: { ...retrySoon } },
      );
    }
    running += 1;
    try {
      await call.events.end({ result: await call.events.during(work()) });
    } finally {
      running -= 1;
    }
    return undefined;
  };

  const maintain = endpoint({
    method: 'post',
    path: '/repositories/:repository/maintain',
    action: 'repository.maintain',
    input: nothing,
    run: async (call) => {
      const repository = await openRepository(options, call, 'admin');
      return await stream(
        call,
        async () =>
          await backend.maintain(repository, {
            signal: call.signal,
            progress: (progress) => call.events.progress(progress),
          }),
      );
    },
  });

  const importFrom = endpoint({
    method: 'post',
    path: '/repositories/:repository/import',
    action: 'repository.import',
    input: z.strictObject({
      source: z.string({ error: 'a URL or an absolute path is wanted' }).min(1),
      public: z.boolean().optional(),
    }),
    shown: ({ source, ...rest }) => ({ ...rest, source: parseImportSource(source).shown }),
    run: async (call, input) => {
      const name = parseRepositoryName(call.param('repository'));
      call.noteRepository(name);
      const source = parseImportSource(input.source);
      const existing = await backend.repositories.get(name);
      if (existing === undefined) {
        requireRepositoryCreator(call.principal, name);
      } else {
        requireOnRepository(options.authorizer, call.principal, {
          action: 'admin',
          name,
          repository: existing,
        });
        if (input.public !== undefined) {
          throw new QuorateError(
            'failed-precondition',
            `${name} exists: public is for a new repository`,
          );
        }
      }
      if (source.privileged) {
        requireServerAdmin(
          call.principal,
          "importing from the server's disk or over its SSH identity",
        );
      }
      return await stream(call, async () => {
        const target =
          existing ??
          (await backend.repositories.create(
            newRepository(call.principal, { ...input, public: input.public ?? false, name }),
            principalName(call.principal),
          ));
        const { refs } = await fill(options, call, {
          target,
          source,
          created: existing === undefined,
        });
        return { repository: shownRepository(target), created: existing === undefined, refs };
      });
    },
  });

  return [maintain, importFrom];
}

async function fill(
  options: LongRunningOptions,
  call: Call,
  wanted: { readonly target: Repository; readonly source: ImportSource; readonly created: boolean },
): Promise<{ readonly refs: number }> {
  const { target, source, created } = wanted;
  try {
    call.signal.throwIfAborted();
    return await options.backend.importFrom(target, source.source, {
      actor: principalName(call.principal),
      signal: call.signal,
      progress: (progress) => call.events.progress(progress),
    });
  } catch (error) {
    if (created && asQuorateError(error).code !== 'outcome-unknown') {
      await removeUnlessPushed(options, call, target);
    }
    throw withoutCredentials(error, source);
  }
}

/** What git said about the source goes to the client and the log: not with the credentials in it. */
function withoutCredentials(error: unknown, source: ImportSource): unknown {
  const { code, message, details, cause } = asQuorateError(error);
  const redacted = source.redact(message);
  if (redacted === message) return error;
  // The cause may say the same again.
  const kept = source.redact(String(cause)) === String(cause) ? cause : undefined;
  return new QuorateError(code, redacted, { details: { ...details }, cause: kept });
}

/** Takes back a repository made for an import that failed, unless somebody has pushed to it meanwhile. */
async function removeUnlessPushed(
  { backend, logger }: LongRunningOptions,
  call: Call,
  repository: Repository,
): Promise<void> {
  try {
    const by = principalName(call.principal);
    await backend.repositories.delete(repository, by, { unlessPushed: true });
  } catch (error) {
    if (asQuorateError(error).code === 'failed-precondition') return;
    logger.warn(
      { component: 'admin', request_id: call.requestId, repo: repository.id, err: error },
      'an empty repository is left of a failed import',
    );
  }
}
