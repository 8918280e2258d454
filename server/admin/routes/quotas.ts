import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { QuotaReport, QuotaSubject } from '../../../hooks/quota/quotas.js';
import { parseRepositoryName } from '../../core/repository-name.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing } from './fields.js';
import { openRepository, type Scoped } from './repositories.js';

type QuotaOptions = Pick<AdminApiOptions, 'backend' | 'authorizer' | 'quotas'>;

/** Quotas are promises of the server's disk: its administrators make them, who administers a repository sees its own. */
export function quotaEndpoints(options: QuotaOptions): Endpoint[] {
  const { quotas } = options;
  const list = endpoint({
    method: 'get',
    path: '/quotas',
    action: 'quota.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing all quotas');
      const { bytes, maxBytes } = await quotas.promised();
      const found = (await quotas.list()).map(shownQuota);
      return {
        status: 200,
        body: { quotas: found, promisedBytes: bytes, mayPromiseBytes: maxBytes },
      };
    },
  });
  const ofRepository = async (call: Call): Promise<Subject> => {
    const repository = await openRepository(options, call, 'admin');
    const { repositories } = options.backend;
    return {
      subject: repository,
      change: (write) => repositories.whileNamed(repository, write),
    };
  };
  return [
    list,
    ...scopedEndpoints(options, {
      path: '/repositories/:repository/quota',
      open: ofRepository,
      changedBy: 'the quota of a repository',
    }),
    ...scopedEndpoints(options, {
      path: '/owners/:owner/quota',
      open: ofOwner,
      changedBy: 'the quota of an owner',
    }),
  ];
}

interface Subject extends Pick<Scoped<never>, 'change'> {
  readonly subject: QuotaSubject;
}

/** The first segment of names of repositories. */
function ofOwner(call: Call): Promise<Subject> {
  requireServerAdmin(call.principal, "seeing an owner's quota");
  const owner = parseRepositoryName(call.param('owner'));
  if (owner.includes('/')) {
    throw new QuorateError(
      'invalid-argument',
      'an owner is the first segment of the names of repositories, without a slash',
    );
  }
  return Promise.resolve({ subject: { owner }, change: (write) => write() });
}

const maxBytes = 2 ** 50;
const bytesField = z
  .int({ error: 'a whole number of bytes is wanted' })
  .min(0, { error: 'has to be 0 or more' })
  .max(maxBytes, { error: 'is more than a pebibyte' });

function scopedEndpoints(
  { quotas }: QuotaOptions,
  {
    path,
    open,
    changedBy,
  }: {
    readonly path: string;
    readonly open: (call: Call) => Promise<Subject>;
    readonly changedBy: string;
  },
): Endpoint[] {
  const show = endpoint({
    method: 'get',
    path,
    action: 'quota.show',
    input: nothing,
    run: async (call) => {
      const report = await quotas.show((await open(call)).subject);
      return { status: 200, body: { quota: shownQuota(report) } };
    },
  });

  const set = endpoint({
    method: 'put',
    path,
    action: 'quota.set',
    input: z.strictObject({ bytes: bytesField }),
    run: async (call, { bytes }) => {
      requireServerAdmin(call.principal, changedBy);
      const { subject, change } = await open(call);
      const report = await change(() => quotas.set(subject, bytes));
      return { status: 200, body: { quota: shownQuota(report) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path,
    action: 'quota.remove',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, changedBy);
      const { subject, change } = await open(call);
      await change(() => quotas.remove(subject));
      return { status: 200, body: { removed: 'owner' in subject ? subject.owner : subject.name } };
    },
  });

  return [show, set, remove];
}

function shownQuota({ kind, name, quotaBytes, usedBytes, state }: QuotaReport): object {
  return { kind, name, quotaBytes: quotaBytes ?? null, usedBytes, state };
}
