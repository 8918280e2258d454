import type { Repository } from '../../backends/contract/repository.js';
import type { Principal, RepositoryAction } from './principal.js';

export type Decision =
  | { readonly allowed: true }
  | {
      readonly allowed: false;
      /**
       * `sign-in`: anonymous, and signing in could help (401). `hidden`: may not know that it exists (404).
       * `denied`: may see it and may not do this (403).
       */
      readonly because: 'sign-in' | 'hidden' | 'denied';
      /** Of `sign-in` and `denied`: what the client is told. Of `hidden`: for logs only. */
      readonly reason: string;
    };

/** The one place that says who may do what. Pure. */
export interface Authorizer {
  /**
   * The answer to a push that is the same whatever there is of the name, so that nothing has to be looked up for it.
   * Undefined when it depends on that.
   */
  decideAnyPush(principal: Principal): Decision | undefined;
  /** `repository` is undefined when there is none of that name: then only `create` can be allowed. */
  decide(
    principal: Principal,
    action: RepositoryAction,
    name: string,
    repository: Repository | undefined,
  ): Decision;
}
