import type { Request, Response } from 'express';
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { type Principal, principalName } from '../auth/principal.js';
import { type Refusal, signedIn, signInRefused } from '../auth/sign-in-details.js';
import { RateRefusal } from '../core/client-rates.js';
import type { AuditLog } from '../observe/audit.js';
import { RefusalLog } from '../observe/refusal-log.js';
import type { MappedError } from './error-map.js';

/** What is known of a request so far, for the answer, the log line and the audit event. */
export interface Exchange {
  readonly request: Request;
  readonly response: Response;
  readonly requestId: string;
  readonly startedMs: number;
  readonly remoteAddress: string;
  readonly action: string;
  /** Arguments and results for the audit event. No secrets. */
  readonly facts: Record<string, unknown>;
  principal: Principal;
  repository: string | undefined;
}

/** What a request leaves behind: a log line, counts, and audit events. */
export interface ExchangeRecorder {
  /** Credentials were judged. Without a refusal, `exchange.principal` is who it is. */
  authenticated(exchange: Exchange, refusal?: Refusal): void;
  /** It is over. Without a failure it went well. */
  finished(exchange: Exchange, failure: MappedError | undefined): void;
}

export function createExchangeRecorder(parts: {
  readonly audit: AuditLog;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly clock: Clock;
}): ExchangeRecorder {
  const { audit, meter, clock } = parts;
  const logger = parts.logger.child({ component: 'admin' });
  const refusals = new RefusalLog({ audit, clock });

  /** Of each address so many a minute: whoever sends too much is not to fill the log with it. */
  const auditLimit = (exchange: Exchange, failure: MappedError): void => {
    refusals.record({
      event: 'limit',
      actor: principalName(exchange.principal),
      remoteAddress: exchange.remoteAddress,
      transport: 'admin',
      requestId: exchange.requestId,
      details: { action: exchange.action, reason: failure.cause.message },
    });
  };

  const auditChange = (exchange: Exchange, failure: MappedError | undefined): void => {
    audit.record({
      event: 'admin',
      outcome: failure?.outcome ?? 'ok',
      actor: principalName(exchange.principal),
      remoteAddress: exchange.remoteAddress,
      transport: 'admin',
      requestId: exchange.requestId,
      ...(exchange.repository === undefined ? {} : { repository: exchange.repository }),
      details: {
        action: exchange.action,
        ...exchange.facts,
        ...(failure === undefined ? {} : { code: failure.cause.code }),
      },
    });
  };

  return {
    authenticated: (exchange, refusal) => {
      const outcome = refusal === undefined ? 'ok' : 'refused';
      meter.count('authentications', { transport: 'http', outcome });
      audit.record({
        event: 'authentication',
        outcome,
        remoteAddress: exchange.remoteAddress,
        transport: 'admin',
        requestId: exchange.requestId,
        ...(refusal === undefined ? signedIn(exchange.principal) : signInRefused(refusal)),
      });
    },
    finished: (exchange, failure) => {
      if (failure?.cause instanceof RateRefusal) auditLimit(exchange, failure);
      else if (!isRead(exchange.request.method)) auditChange(exchange, failure);
      const seconds = (clock.monotonicMs() - exchange.startedMs) / 1000;
      const labels = { transport: 'http', service: 'admin' };
      meter.count('requests', { ...labels, outcome: failure?.outcome ?? 'ok' });
      meter.observe('request_seconds', seconds, labels);
      const fields = {
        request_id: exchange.requestId,
        principal: principalName(exchange.principal),
        repository: exchange.repository,
        action: exchange.action,
        remote_address: exchange.remoteAddress,
        status: exchange.response.statusCode,
        duration_ms: Math.round(seconds * 1000),
      };
      if (failure === undefined) {
        logger.info(fields, 'admin request');
      } else if (failure.outcome === 'refused') {
        logger.info({ ...fields, code: failure.cause.code }, 'admin request');
      } else {
        logger.error(
          { ...fields, code: failure.cause.code, err: failure.cause },
          'admin request failed',
        );
      }
    },
  };
}

function isRead(method: string): boolean {
  return method === 'GET' || method === 'HEAD';
}
