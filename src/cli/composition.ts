/** What the command line needs from src/compose.ts, which is loaded only by the commands that start something. */
import type { Config } from '../config/schema.ts';
import type { Log } from '../log.ts';

export type ServerRole = 'up' | 'proxy' | 'admin' | 'worker';

export interface Running {
  /** By name, for example `proxy` and `admin`. */
  readonly addresses: Readonly<Record<string, string>>;
  /** What the operator must know now, a sentence each. */
  readonly warnings: readonly string[];
  /** Changes to other rules without a restart. False: nothing has changed, and the log says why. */
  reload(next: { readonly config: Config; readonly configHash: string }): Promise<boolean>;
  /** Reads the certificate of the proxy's listening side again, if it has one. */
  renewCertificate(): void;
  /** Ends gracefully: what is in flight is finished first. */
  stop(): Promise<void>;
  /** Resolves when a part has failed that cannot be done without. */
  readonly failed: Promise<Error>;
}

export interface Composition {
  /** Throws where the role cannot start; the message says what to do. */
  startRole(
    role: ServerRole,
    request: {
      readonly config: Config;
      /** Fingerprint of identity, partition and access. */
      readonly configHash: string;
      readonly env: NodeJS.ProcessEnv;
      readonly log: Log;
    },
  ): Promise<Running>;
}
