"""What fulfillment can be told and asked, and what it answers."""

from shared.contracts.fulfillment import pricing, shipping, tax
from shared.messages import Message

MESSAGES: tuple[type[Message], ...] = (
    pricing.Price,
    pricing.QuoteRates,
    pricing.PutSettings,
    pricing.GetSettings,
    tax.PutRule,
    tax.DeleteRule,
    tax.ListRules,
    tax.PutNexus,
    tax.DeleteNexus,
    tax.ListNexus,
    tax.PutExemption,
    tax.DeleteExemption,
    tax.ListExemptions,
    tax.FinalizeTax,
    tax.GetTax,
    tax.ExportPage,
    tax.ExportDone,
    tax.ListExports,
    tax.ThresholdReached,
    shipping.BuyLabel,
    shipping.VoidLabel,
    shipping.GetDocument,
    shipping.GetTracking,
    shipping.ListShipments,
    shipping.ListUnknownLabels,
    shipping.DecideLabel,
    shipping.TakeEvent,
    shipping.TrackingChanged,
    shipping.LabelChanged,
)
