import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { QuotaReport, QuotaSubject } from '../../../hooks/quota/quotas.js';
import { parseRepositoryName } from '../../core/repository-name.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing } from './fields.js';
import { openRepository } from './repositories.js';

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
  const ofRepository = async (call: Call): Promise<QuotaSubject> =>
    openRepository(options, call, 'admin');
  return [
    list,
    ...scopedEndpoints(options, {
      path: '/repositories/:repository/quota',
      subjectOf: ofRepository,
      changedBy: 'the quota of a repository',
    }),
    ...scopedEndpoints(options, {
      path: '/owners/:owner/quota',
      subjectOf: ofOwner,
      changedBy: 'the quota of an owner',
    }),
  ];
}

/** The first segment of names of repositories. */
function ofOwner(call: Call): Promise<QuotaSubject> {
  requireServerAdmin(call.principal, "seeing an owner's quota");
  const owner = parseRepositoryName(call.param('owner'));
  if (owner.includes('/')) {
    throw new QuorateError(
      'invalid-argument',
      'an owner is the first segment of the names of repositories, without a slash',
    );
  }
  return Promise.resolve({ owner });
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
    subjectOf,
    changedBy,
  }: {
    readonly path: string;
    readonly subjectOf: (call: Call) => Promise<QuotaSubject>;
    readonly changedBy: string;
  },
): Endpoint[] {
  const show = endpoint({
    method: 'get',
    path,
    action: 'quota.show',
    input: nothing,
    run: async (call) => {
      const report = await quotas.show(await subjectOf(call));
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
      const report = await quotas.set(await subjectOf(call), bytes);
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
      const subject = await subjectOf(call);
      await quotas.remove(subject);
      return { status: 200, body: { removed: 'owner' in subject ? subject.owner : subject.name } };
    },
  });

  return [show, set, remove];
}

function shownQuota({ kind, name, quotaBytes, usedBytes, state }: QuotaReport): object {
  return { kind, name, quotaBytes: quotaBytes ?? null, usedBytes, state };
}
